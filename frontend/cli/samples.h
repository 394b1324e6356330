/* samples.h: for every op of the language, small graphs around it: odd sizes, empty, scalar, broadcast and strided operands. selftest runs
 * them on the JIT and the interpreter; the tests use them too. */
#ifndef TT_CLI_SAMPLES_H
#define TT_CLI_SAMPLES_H

#include "../../ir/ir.h"

/* Builds variant number `variant` for the op with its first argument of type t: inputs "a", "b", "c" (params for assign), one output "y".
 * 0: there is no such variant; else 1. A mistake in it is in g->error. */
int sample_build(ir_graph *g, ir_op op, tt_dtype t, int variant);
/* Data for an input: values that suit the op (indices in and just out of range, numbers in its domain with the odd ones among them:
 * zeros of both signs, infinities, NaN, subnormals, extremes). Only the low ones when exact is set: small whole numbers, whose sums and
 * products are exact. */
void sample_fill(const ir_graph *g, ir_op op, ir_ref input, uint64_t seed, bool exact, void *data);
/* Most units in the last place between two implementations of an elementwise op; 0: to the bit. -1: not elementwise. */
int sample_ulp(ir_op op, tt_dtype t);

#endif
