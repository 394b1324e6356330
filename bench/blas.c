/* blas.c: matrix products by any library with cblas_sgemm (OpenBLAS, BLIS, MKL), given by path, in this process, on as many threads. */
#include "bench.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef void sgemm_fn(int order, int ta, int tb, int m, int n, int k, float alpha, const float *a, int lda, const float *b, int ldb, float beta, float *c, int ldc);
typedef struct { sgemm_fn *sgemm; tt_tensor *a, *b, *c; int64_t batch, m, n, k; bool ta, tb; } product;

static bool run(bench_side *s, int n_runs, double *ms) {
  product *p = s->self;
  int repeat = s->once > 0 && s->once < 0.02 ? (int)(0.02 / s->once) + 1 : 1;
  for (int i = 0; i < n_runs; i++) {
    double start = bench_now();
    for (int64_t r = 0; r < repeat * p->batch; r++) {
      int64_t at = r % p->batch;
      p->sgemm(101, p->ta ? 112 : 111, p->tb ? 112 : 111, (int)p->m, (int)p->n, (int)p->k, 1, (const float *)tt_tensor_data(p->a) + at * p->m * p->k, (int)(p->ta ? p->m : p->k),
               (const float *)tt_tensor_data(p->b) + at * p->k * p->n, (int)(p->tb ? p->k : p->n), 0, (float *)tt_tensor_data(p->c) + at * p->m * p->n, (int)p->n);
    }
    ms[i] = 1e3 * (bench_now() - start) / repeat;
  }
  return true;
}

static void close_blas(bench_side *s) {
  product *p = s->self;
  tt_tensor_free(p->a), tt_tensor_free(p->b), tt_tensor_free(p->c);
  free(p);
}

/* The library stays open: pools of threads do not survive dlclose. */
bool bench_blas(bench_side *s, const char *file, const bench_workload *w, int threads) {
  const char *what = w->family->what, *name = strrchr(file, '/');
  bool batched = !strcmp(what, "bmm");
  const int64_t *d = w->size + batched;
  *s = (bench_side){0};
  snprintf(s->framework, sizeof s->framework, "%.38s", name ? name + 1 : file);
  char *end = strstr(s->framework, ".so");
  if (end) *end = 0;
  void *library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
  if (!library) return snprintf(s->error, sizeof s->error, "%s", dlerror()), false;
  product p = {.batch = batched ? d[-1] : 1, .m = d[0], .n = d[1], .k = d[2], .ta = !strcmp(what, "matmul_tn"), .tb = !strcmp(what, "matmul_nt")};
  *(void **)&p.sgemm = dlsym(library, "cblas_sgemm");
  if (!p.sgemm) return snprintf(s->error, sizeof s->error, "%s has no cblas_sgemm", file), false;
  static const char *const set_threads[] = {"openblas_set_num_threads", "bli_thread_set_num_threads", "MKL_Set_Num_Threads"};
  for (int i = 0; i < 3; i++) {
    void *set = dlsym(library, set_threads[i]);
    if (i == 1 && set) ((void (*)(int64_t))set)(threads);
    else if (set) ((void (*)(int))set)(threads);
  }
  p.a = tt_tensor_new(TT_F32, &TT_SHAPE(p.batch, p.m, p.k), NULL), p.b = tt_tensor_new(TT_F32, &TT_SHAPE(p.batch, p.k, p.n), NULL), p.c = tt_tensor_new(TT_F32, &TT_SHAPE(p.batch, p.m, p.n), NULL);
  product *own = malloc(sizeof *own);
  if (!p.a || !p.b || !p.c || !own) {
    tt_tensor_free(p.a), tt_tensor_free(p.b), tt_tensor_free(p.c);
    free(own);
    return snprintf(s->error, sizeof s->error, "no memory"), false;
  }
  uint64_t state = 1;
  for (int64_t i = 0; i < p.batch * p.m * p.k; i++) ((float *)tt_tensor_data(p.a))[i] = (float)(2 * bench_random(&state) - 1);
  for (int64_t i = 0; i < p.batch * p.k * p.n; i++) ((float *)tt_tensor_data(p.b))[i] = (float)(2 * bench_random(&state) - 1);
  *own = p;
  s->run = run, s->close = close_blas, s->self = own;
  return true;
}
