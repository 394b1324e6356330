/* blas.c: large plain products through OpenBLAS, one slice of rows a task, single-threaded within it.
 *
 * Where it measures faster than our tile (`tinytorch bench matmul`): from 1024 rows, columns and summed elements on, when nothing is fused with the product
 * and its operands stand as they are. The library is opened at the first such product; without it, and with TT_BLAS=0, our own kernel serves. Slices are
 * cut by shape alone, so the bits do not depend on the threads. OpenBLAS keeps its number of threads for the whole process: it is set to 1. */
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "codegen.h"

enum { LEAST = 1024, SLICE = 256, ROW_MAJOR = 101, AS_IT_IS = 111, TRANSPOSED = 112 };

typedef void sgemm_fn(int, int, int, int, int, int, float, const float *, int, const float *, int, float, float *, int);
typedef void dgemm_fn(int, int, int, int, int, int, double, const double *, int, const double *, int, double, double *, int);
typedef struct { sgemm_fn *sgemm; dgemm_fn *dgemm; int m, n, k; bool ta, tb, wide; } product;

static bool open_blas(sgemm_fn **sgemm, dgemm_fn **dgemm) {
  const char *wanted = getenv("TT_BLAS");
  if (wanted && strcmp(wanted, "0") == 0) return false;
  void *library = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);          /* counted by the loader: opened once, and kept */
  if (!library) return false;
  *sgemm = (sgemm_fn *)dlsym(library, "cblas_sgemm"), *dgemm = (dgemm_fn *)dlsym(library, "cblas_dgemm");
  void (*set_threads)(int) = (void (*)(int))dlsym(library, "openblas_set_num_threads");
  if (set_threads) set_threads(1);
  return *sgemm && *dgemm && set_threads;
}

void cg_blas_kernel(char *const *args, int64_t begin, int64_t end, char *scratch, const void *context) {
  const product *p = context;
  int from = (int)begin * SLICE, rows = (int)end * SLICE < p->m ? (int)(end - begin) * SLICE : p->m - from;
  int lda = p->ta ? p->m : p->k, ldb = p->tb ? p->k : p->n, ta = p->ta ? TRANSPOSED : AS_IT_IS, tb = p->tb ? TRANSPOSED : AS_IT_IS;
  size_t a = p->ta ? (size_t)from : (size_t)from * (size_t)p->k, c = (size_t)from * (size_t)p->n;
  for (int r = 0; r < rows; r += SLICE) {              /* always the same calls, whoever makes them */
    int m = rows - r < SLICE ? rows - r : SLICE;
    size_t da = p->ta ? (size_t)r : (size_t)r * (size_t)p->k, dc = (size_t)r * (size_t)p->n;
    if (p->wide) p->dgemm(ROW_MAJOR, ta, tb, m, p->n, p->k, 1, (const double *)args[0] + a + da, lda, (const double *)args[1], ldb, 0, (double *)args[2] + c + dc, p->n);
    else p->sgemm(ROW_MAJOR, ta, tb, m, p->n, p->k, 1, (const float *)args[0] + a + da, lda, (const float *)args[1], ldb, 0, (float *)args[2] + c + dc, p->n);
  }
}

bool cg_blas_bind(void *context) {
  product *p = context, none;
  if (!p) p = &none;
  return open_blas(&p->sgemm, &p->dgemm);
}

bool cg_blas_could(const ir_graph *g, uint32_t region, ir_ref *row) {
  *row = g->kernels[region].first;
  const ir_node *n = *row && *row == g->kernels[region].last ? ir_at(g, *row) : NULL;
  if (!n || n->op != IR_matmul || n->rank != 2 || ir_int(n, "split") > 1 || (n->dtype != TT_F32 && n->dtype != TT_F64)) return false;
  static const char *const entries[] = {"tile", "pack", "blocks", "chunk", "inside"};      /* a plan for our own kernel */
  uint32_t count;
  for (int i = 0; i < 5; i++)
    if (ir_kernel_get(g, region, entries[i], &count)) return false;
  int64_t k = ir_at(g, n->args[0])->dim[ir_int(n, "ta") ? 0 : 1];
  return n->dim[0] >= LEAST && n->dim[1] >= LEAST && k >= LEAST && n->dim[0] <= INT32_MAX - SLICE && n->dim[1] <= INT32_MAX && k <= INT32_MAX;
}

bool cg_blas_wants(const ir_graph *g, uint32_t region, ir_ref *row) { return cg_blas_could(g, region, row) && cg_blas_bind(NULL); }

bool cg_blas_step(const ir_graph *g, uint32_t region, ir_ref row, cg_program *c) {
  const ir_node *n = ir_at(g, row);
  product *p = cg_program_alloc(c, sizeof *p);
  if (!p || !open_blas(&p->sgemm, &p->dgemm)) return false;
  p->ta = ir_int(n, "ta"), p->tb = ir_int(n, "tb"), p->wide = n->dtype == TT_F64;
  p->m = (int)n->dim[0], p->n = (int)n->dim[1], p->k = (int)ir_at(g, n->args[0])->dim[p->ta ? 0 : 1];
  ir_ref args[] = {n->args[0], n->args[1], row};
  return cg_program_step(c, &(cg_step){.run = cg_blas_kernel, .context = p, .context_bytes = sizeof *p, .name = g->kernels[region].name, .region = region, .args = args, .n_args = 3, .tasks = (p->m + SLICE - 1) / SLICE});
}
