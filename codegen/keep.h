/* keep.h: whole programs in the cache of compiled kernels, found by what was traced. */
#ifndef TT_KEEP_H
#define TT_KEEP_H

#include "cache.h"
#include "kernels.h"

/* Of a traced graph, and of all that its program depends on beside: `how` (the caller's options as a text), the CPU, and this build of the compiler. */
rt_key cg_keep_key(const ir_graph *traced, const cg_cpu *cpu, const char *how);
/* The program, with all of its kernels, or false: it is not there, or not whole. o->kernel is told of each kernel, as cached. */
bool cg_keep_get(cg_cache *c, const rt_key *key, const cg_options *o, rt_program **p);
/* Puts it there. symbols: the kernels' addresses in p; their code is in the cache already. */
void cg_keep_put(cg_cache *c, const rt_key *key, const rt_program *p, const cg_kernels *ks, const cg_cpu *cpu, rt_kernel *const *symbols);

#endif
