/* code.h: kernels of the loop language to machine code in memory. */
#ifndef TT_CODE_H
#define TT_CODE_H

#include "kernels.h"

/* images[i] of kernel i, its data malloc'ed: from the cache, or compiled and put there. */
tt_status cg_images(const cg_kernel *kernels, int n, const cg_cpu *cpu, const cg_options *o, rt_image *images, tt_error *err);
/* jit.c: the program of a graph whose kernels have these addresses. code: freed with it; may be NULL. */
tt_status cg_program_of(const cg_kernels *ks, rt_kernel *const *symbols, rt_code *code, rt_program **p, tt_error *err);
/* What is in the cache is taken from there; LLVM compiles the rest, which is put there. symbols[i]: kernel i. NULL: err is set. */
/* The map that perf reads, with TT_PERF=1. */
void cg_perf_map(const char *const *names, const rt_image *images, int n, rt_kernel *const *symbols);
rt_code *cg_code(const cg_kernel *kernels, int n, const cg_cpu *cpu, const cg_options *o, rt_kernel **symbols, tt_error *err);

#endif
