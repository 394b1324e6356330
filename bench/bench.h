/* bench.h: timing, and what makes a time a figure: medians with intervals, taken by turns, against a bound. */
#ifndef TT_BENCH_H
#define TT_BENCH_H

#include "../frontend/cli/cli.h"
#include "../ir/ir.h"
#include "../runtime/runtime.h"

double bench_now(void);                                      /* seconds */

/* stats.c */
typedef struct { double median, low, high, best; int n; } bench_stat;     /* low, high: 95% bootstrap interval of the median */
bench_stat bench_stats(const double *samples, int n);

/* Floating-point operations of one training step of this network: products and convolutions, forward and both gradients, less the
 * gradient for the network's input, which nobody needs. g: a forward trace. */
double bench_train_flops(const ir_graph *g);

int bench_matmul(const cli_args *a);                         /* matmul.c */

#endif
