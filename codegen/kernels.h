/* kernels.h: the kernels of a scheduled graph, lowered to loops, each different one once. */
#ifndef TT_KERNELS_H
#define TT_KERNELS_H

#include "codegen.h"

/* Instead of a kernel's number: a C function of the runtime (argsort); OpenBLAS; a scan, whose body's regions follow; the end of that. */
enum { CG_CALL = -1, CG_BLAS = -2, CG_SCAN = -3, CG_END = -4 };
enum { CG_KIND_LOOP, CG_KIND_CONTRACT, CG_KIND_CALL };
enum { CG_MAX_ARGUMENTS = 1024 };              /* of one kernel */

typedef struct {
  lp_kernel *loops;
  char *text;                                  /* printed under the name "k": equal texts are one kernel */
  double lower_ms;
} cg_kernel;

typedef struct {
  const ir_graph *g;
  uint32_t *regions, n_regions;                /* those with live rows, in order, those of scans' bodies between CG_SCAN and CG_END */
  const ir_graph **graphs;                     /* of each region: g, or a body */
  int *which;                                  /* of each region: its kernel */
  ir_ref **rows; uint32_t *n_rows;             /* of each region: its arguments */
  cg_kernel *kernels; int n_kernels;           /* the different ones */
} cg_kernels;

/* blas: products that OpenBLAS does faster are left to it. false: err is set, and nothing is kept. */
bool cg_kernels_of(const ir_graph *g, const cg_cpu *cpu, int n_threads, bool blas, const volatile int *stop, cg_kernels *ks, tt_error *err);
/* Regions with live rows, in order, bodies of scans too; which: CG_CALL, CG_SCAN, CG_END or 0. Kernels as such are not made yet. */
bool cg_regions_of(const ir_graph *g, cg_kernels *ks, tt_error *err);
void cg_kernels_free(cg_kernels *ks);
int64_t cg_kernel_kind(const ir_graph *g, uint32_t region);
lp_kernel *cg_kernel_lower(const ir_graph *g, uint32_t region, const cg_cpu *cpu, ir_ref *rows, tt_error *err);   /* rows: CG_MAX_ARGUMENTS */
int cg_default_threads(void);                  /* as many as this process may use */

#endif
