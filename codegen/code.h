/* code.h: kernels of the loop language to machine code in memory. */
#ifndef TT_CODE_H
#define TT_CODE_H

#include "kernels.h"

/* What is in the cache is taken from there; LLVM compiles the rest, which is put there. symbols[i]: kernel i. NULL: err is set. */
rt_code *cg_code(const cg_kernel *kernels, int n, const cg_cpu *cpu, const cg_options *o, rt_kernel **symbols, tt_error *err);

#endif
