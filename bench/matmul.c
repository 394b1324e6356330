/* matmul.c: matrix products against a BLAS given by path, by turns: matmul, matmul_nt (b stands [N,K]) and matmul_tn (a stands [K,M]), f32. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../frontend/cli/cli.h"
#include "bench.h"

typedef void sgemm_fn(int order, int ta, int tb, int m, int n, int k, float alpha, const float *a, int lda, const float *b, int ldb, float beta, float *c, int ldc);

typedef struct { int64_t m, n, k; bool ta, tb; } product;

static bool parse(const char *text, product *p) {
  long long m, n, k;
  *p = (product){0};
  if (strncmp(text, "op.", 3) == 0) text += 3;
  if (strncmp(text, "matmul_nt.", 10) == 0) p->tb = true, text += 10;
  else if (strncmp(text, "matmul_tn.", 10) == 0) p->ta = true, text += 10;
  else if (strncmp(text, "matmul.", 7) == 0) text += 7;
  int used = 0;
  if (sscanf(text, "%lldx%lldx%lld%n", &m, &n, &k, &used) != 3 || text[used] || m < 1 || n < 1 || k < 1 || m > 16384 || n > 16384 || k > 16384) return false;
  p->m = m, p->n = n, p->k = k;
  return true;
}

static bool bench_product(const char *name, product p, rt_team *team, sgemm_fn *sgemm, const char *cpu, double *log_ratio, tt_error *err) {
  enum { MOST = 400 };
  tt_trace *t = tt_trace_new("product", false);
  tt_val a = tt_input(t, "a", TT_F32, p.ta ? TT_SHAPE(p.k, p.m) : TT_SHAPE(p.m, p.k)), b = tt_input(t, "b", TT_F32, p.tb ? TT_SHAPE(p.n, p.k) : TT_SHAPE(p.k, p.n));
  tt_output(t, "c", tt_matmul(p.ta ? tt_transpose(a, 0, 1) : a, p.tb ? tt_transpose(b, 0, 1) : b));
  ir_graph *g = NULL;
  rt_program *program = NULL;
  rt_instance *run = NULL;
  tt_tensor *x = tt_tensor_new(TT_F32, &TT_SHAPE(p.m, p.k), err), *y = tt_tensor_new(TT_F32, &TT_SHAPE(p.k, p.n), err), *z = tt_tensor_new(TT_F32, &TT_SHAPE(p.m, p.n), err);
  tt_tensor *xa = NULL, *yb = NULL;
  bool ok = x && y && z && tt_trace_finish(t, &g, err) == TT_OK && tt_compile(g, &(tt_compile_options){.cpu = cpu}, &program, err) == TT_OK && (run = rt_instance_new(program, team, err));
  if (ok) {
    float *d = tt_tensor_data(x), *e = tt_tensor_data(y);
    for (int64_t i = 0; i < p.m * p.k; i++) d[i] = (float)(i % 7) - 3;
    for (int64_t i = 0; i < p.k * p.n; i++) e[i] = (float)(i % 5) - 2;
    xa = p.ta ? tt_tensor_reshape(x, &TT_SHAPE(p.k, p.m), err) : tt_tensor_retain(x), yb = p.tb ? tt_tensor_reshape(y, &TT_SHAPE(p.n, p.k), err) : tt_tensor_retain(y);
    ok = xa && yb && rt_bind(run, "a", xa, err) == TT_OK && rt_bind(run, "b", yb, err) == TT_OK;
  }
  double ours[MOST], theirs[MOST], peak = 0, flops = 2.0 * (double)p.m * (double)p.n * (double)p.k;
  int n = 0, repeat = flops < 2e7 ? (int)(2e7 / flops) + 1 : 1;
  double begin = bench_now();
  while (ok && n < MOST && (n < 7 || bench_now() - begin < 1.5)) {
    double f = n % 10 ? 0 : rt_machine_peak_f32(team), s = bench_now();
    if (f > peak) peak = f;
    s = bench_now();
    for (int i = 0; i < repeat && ok; i++) ok = rt_run(run, err) == TT_OK;
    ours[n] = (bench_now() - s) / repeat;
    s = bench_now();
    for (int i = 0; i < repeat && sgemm; i++)
      sgemm(101, p.ta ? 112 : 111, p.tb ? 112 : 111, (int)p.m, (int)p.n, (int)p.k, 1, tt_tensor_data(x), (int)(p.ta ? p.m : p.k), tt_tensor_data(y), (int)(p.tb ? p.k : p.n), 0, tt_tensor_data(z), (int)p.n);
    theirs[n++] = (bench_now() - s) / repeat;
  }
  if (ok) {
    bench_stat o = bench_stats(ours + 1, n - 1), q = bench_stats(theirs + 1, n - 1);
    printf("%-28s %9.4f ms [%.4f, %.4f] %5.1f%%", name, 1e3 * o.median, 1e3 * o.low, 1e3 * o.high, 100 * flops / o.median / peak);
    if (sgemm) printf("   BLAS %9.4f ms %5.1f%%   %.2fx", 1e3 * q.median, 100 * flops / q.median / peak, q.median / o.median);
    printf("\n");
    fflush(stdout);
    *log_ratio = q.median / o.median;
  }
  rt_instance_free(run);
  rt_program_free(program);
  ir_graph_free(g);
  tt_trace_free(t);
  tt_tensor_free(x), tt_tensor_free(y), tt_tensor_free(z), tt_tensor_free(xa), tt_tensor_free(yb);
  return ok;
}

int bench_matmul(const cli_args *a) {
  static const char *const usual[] = {"matmul.64x64x64", "matmul.128x128x128", "matmul.256x256x256", "matmul.512x512x512", "matmul.1024x1024x1024", "matmul.2048x2048x2048", "matmul.128x512x784",
                                      "matmul.64x256x4096", "matmul.1024x1536x384", "matmul.1x768x768", "matmul.128x10x512", "matmul_nt.256x256x256", "matmul_nt.128x512x784", "matmul_tn.256x256x256", "matmul_tn.512x784x128"};
  tt_error err = {0};
  int64_t threads;
  if (!cli_int(a, "threads", 1, 1, &threads)) return 2;
  const char *blas = cli_get(a, "blas", NULL);
  void *library = blas ? dlopen(blas, RTLD_NOW | RTLD_LOCAL) : NULL;
  if (blas && !library) {
    fprintf(stderr, "tinytorch bench: --blas %s: %s\n", blas, dlerror());
    return 1;
  }
  sgemm_fn *sgemm = library ? (sgemm_fn *)dlsym(library, "cblas_sgemm") : NULL;
  void (*set_threads)(int) = library ? (void (*)(int))dlsym(library, "openblas_set_num_threads") : NULL;
  if (blas && !sgemm) {
    fprintf(stderr, "tinytorch bench: --blas %s: has no cblas_sgemm\n", blas);
    return 1;
  }
  if (set_threads) set_threads((int)threads);
  rt_team *team = rt_team_new((int)threads, &err);
  int n = a->n_words > 1 ? a->n_words - 1 : (int)(sizeof usual / sizeof *usual);
  printf("medians with 95%% intervals, %% of the measured f32 peak, %d threads\n", (int)threads);
  for (int i = 0; i < n && team && !err.status; i++) {
    const char *name = a->n_words > 1 ? a->words[i + 1] : usual[i];
    product p;
    double ratio;
    if (!parse(name, &p)) tt_fail(&err, TT_INVALID, "error: %s is no product\n  at bench matmul\n  fix: write matmul.MxNxK, matmul_nt.MxNxK or matmul_tn.MxNxK", name);
    else bench_product(name, p, team, sgemm, cli_get(a, "cpu", NULL), &ratio, &err);
  }
  rt_team_free(team);
  if (library) dlclose(library);
  return err.status ? cli_fail(&err) : 0;
}
