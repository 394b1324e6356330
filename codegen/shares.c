/* shares.c: which bytes of each argument a task of a kernel touches. Where task t keeps to bytes t*size .. (t+1)*size-1, the executor knows that
 * two kernels which deal the same bytes alike need no barrier between them (runtime/barriers.c).
 *
 * It is read off the indices: each load and store of the buffer must be task*stride + something in 0 .. stride-1. */
#include "codegen.h"

enum { OPEN = -1, UNSEEN = -2 };      /* strides: any element; no access yet */

static void access(lp_kernel *k, int64_t *stride, lp_ref index) {
  int64_t c, lo = 0, hi = -1;
  if (*stride == OPEN) return;
  bool fits = lp_affine(k, index, 0, &c) && c > 0 && (*stride == UNSEEN || c == *stride);
  if (fits) lp_range(k, lp_subst(k, index, 0, lp_int(k, 0)), &lo, &hi);
  *stride = fits && lo >= 0 && hi < c ? c : OPEN;
}

static void stores(lp_kernel *k, const lp_stmt *s, int64_t *strides) {
  for (; s; s = s->next) {
    if (s->kind == LS_STORE) access(k, &strides[s->buffer], s->index);
    stores(k, s->body, strides);
  }
}

void cg_task_bytes(lp_kernel *k, int64_t *bytes) {
  int64_t *strides = lp_alloc(k, ((size_t)k->n_buffers + 1) * sizeof *strides);
  int n = 0;
  if (!strides) return;
  for (int i = 0; i < k->n_buffers; i++) strides[i] = UNSEEN;
  for (uint32_t e = 1, end = k->n_exprs; e < end; e++)
    if (k->exprs[e].kind == LX_LOAD) access(k, &strides[k->exprs[e].imm], k->exprs[e].a[0]);
  stores(k, k->body, strides);
  for (int i = 0; i < k->n_buffers; i++)
    if (!k->buffers[i].scratch) bytes[n++] = strides[i] > 0 ? strides[i] * (int64_t)tt_dtype_size(k->buffers[i].dtype) : 0;
}
