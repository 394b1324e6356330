/* math_test.c: the largest errors of the functions of codegen/llvm/math.c, over samples of the whole range of arguments, against libm in
 * double (f32) and in long double (f64). TT_MATH_SAMPLES sets how many (default 1<<18 a function and level); SHOW=1 prints the table. */
#include <criterion/criterion.h>
#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compiled.h"

static long double sigmoid(long double x) { return x < 0 ? expl(x) / (1 + expl(x)) : 1 / (1 + expl(-x)); }
static long double rsqrt(long double x) { return 1 / sqrtl(x); }
static long double fmod_of(long double x, long double y) { return fmodl(x, y); }

typedef struct { ir_op op; long double (*one)(long double), (*two)(long double, long double); double limit[2]; } row;
static const row rows[] = {      /* limits in ulp: f32, f64 */
  {IR_exp, expl, NULL, {1.2, 1.2}},       {IR_expm1, expm1l, NULL, {1.8, 2.0}},    {IR_log, logl, NULL, {0.9, 0.9}},
  {IR_log1p, log1pl, NULL, {0.9, 0.9}},   {IR_sigmoid, sigmoid, NULL, {2.4, 2.5}}, {IR_tanh, tanhl, NULL, {2.6, 2.6}},
  {IR_erf, erfl, NULL, {3.6, 1.5}},       {IR_sin, sinl, NULL, {1.4, 1.4}},        {IR_cos, cosl, NULL, {1.5, 1.5}},
  {IR_tan, tanl, NULL, {2.7, 1}},         {IR_atan, atanl, NULL, {1.7, 1}},        {IR_rsqrt, rsqrt, NULL, {1.5, 1.5}},
  {IR_pow, NULL, powl, {0.6, 1}},         {IR_atan2, NULL, atan2l, {1.5, 1}},      {IR_fmod, NULL, fmod_of, {0, 0}},
};

static uint64_t state = 88172645463325252;
static uint64_t bits(void) {
  state ^= state << 13, state ^= state >> 7, state ^= state << 17;
  return state * 0x2545f4914f6cdd1d;
}

/* Half of the samples are any bits at all, the other half numbers of usual size; every 64th is special. */
static double sample(bool wide, int64_t i) {
  static const double special[] = {0, -0.0, INFINITY, -INFINITY, NAN, 1, -1, 2, 0.5, -2, 3, 1e-45, -1e-45, 5e-324, 88.8, -103.9, 709.9, 1e7, 1.6e7, 3.4e38, -3};
  if (i % 64 == 0) return special[bits() % (sizeof special / sizeof *special)];
  if (i % 2) {
    uint64_t u = bits();
    uint32_t v = (uint32_t)(u >> 32);
    double d;
    float f;
    memcpy(&d, &u, 8), memcpy(&f, &v, 4);
    if (isnan(d)) d = NAN;      /* signalling ones have rules of their own */
    if (isnan(f)) f = NAN;
    return wide ? d : f;
  }
  return (double)(int64_t)bits() / 9.3e18 * ((bits() & 3) == 0 ? 100 : (bits() & 3) == 1 ? 10 : 2);
}

static double ulps(bool wide, double x, long double y) {
  int digits = wide ? 53 : 24, lowest = wide ? -1074 : -149, e;
  long double largest = wide ? 0x1.fffffffffffff8p1023L : 0x1.ffffffp127L;      /* rounds to infinity from here on */
  if (isnan(x) || isnan(y)) return isnan(x) && isnan(y) ? 0 : INFINITY;
  if (fabsl(y) >= largest && isinf(x) && (x > 0) == (y > 0)) return 0;
  if (isinf(x) || isinf(y)) {
    if (!isinf(x) || isinf(y)) return INFINITY;
    return (double)((ldexpl(1, wide ? 1024 : 128) - fabsl(y)) / ldexpl(1, wide ? 971 : 104));      /* overflowed a little early */
  }
  if (x == 0 && y == 0 && !signbit(x) != !signbit(y)) return INFINITY;
  frexpl(y, &e);
  return (double)(fabsl((long double)x - y) / ldexpl(1, e - digits > lowest ? e - digits : lowest));
}

static lp_kernel *make(const row *r, tt_dtype t, int64_t n, int lanes) {
  lp_kernel *k = lp_new(ir_ops[r->op].name, 1);
  int x = lp_buffer_add(k, "x", t, n, false, false), y = lp_buffer_add(k, "y", t, n, false, false), out = lp_buffer_add(k, "out", t, n, true, false);
  int j = lp_var_add(k, "j", n);
  lp_cursor at = {&k->body}, inside;
  lp_for(k, &at, j, 0, n, lanes, &inside);
  lp_stmt *s = lp_append(k, &inside, LS_STORE);
  s->buffer = out, s->index = lp_var(k, j);
  s->value = lp_op(k, r->op, t, lp_load(k, x, s->index, 0, 0), r->two ? lp_load(k, y, s->index, 0, 0) : 0, 0);
  return k;
}

static void measure(tt_dtype t) {
  enum { N = 4096, N_ROWS = sizeof rows / sizeof *rows };
  const char *samples = getenv("TT_MATH_SAMPLES");
  int64_t total = samples ? atoll(samples) : 1 << 18;
  bool wide = t == TT_F64, show = getenv("SHOW") != NULL;
  void *module = dlopen(TT_BINARY_DIR "/lib/libtinytorch_llvm.so", RTLD_NOW | RTLD_LOCAL);
  cr_assert(module, "%s", dlerror());
  const cg_llvm_api *api = ((const cg_llvm_api *(*)(void))dlsym(module, "cg_llvm_module"))();
  static const char *levels[] = {"x86-64-v2", "x86-64-v3", "native"};
  static double x[N], y[N];
  static char px[N * 8], py[N * 8], out[N * 8];
  for (int l = 0; l < 3; l++) {
    cg_cpu cpu;
    tt_error err = {0};
    if (cg_cpu_get(levels[l], &cpu, NULL) != TT_OK || (l == 2 && cpu.level < 4)) continue;
    lp_kernel *ks[2 * N_ROWS];
    rt_kernel *code[2 * N_ROWS];
    for (int r = 0; r < N_ROWS; r++) ks[2 * r] = make(&rows[r], t, N, 32), ks[2 * r + 1] = make(&rows[r], t, N, 1);
    rt_code *loaded = compiled(api, &cpu, ks, 2 * N_ROWS, code, &err);
    cr_assert(loaded, "%s", err.message);
    for (int r = 0; r < N_ROWS; r++) {
      double worst = 0, worst_x = 0, worst_y = 0, worst_got = 0;
      for (int64_t done = 0; done < total; done += N) {
        bool scalar = done == 0;
        for (int i = 0; i < N; i++) {
          x[i] = sample(wide, i), y[i] = sample(wide, i * 7 + 3);
          if (rows[r].op == IR_pow && (bits() & 3) == 0) y[i] = nearbyint(y[i]);
          ir_store_double(t, px, i, x[i]), ir_store_double(t, py, i, y[i]);
          x[i] = ir_load_double(t, px, i), y[i] = ir_load_double(t, py, i);
        }
        code[2 * r + scalar]((char *[]){px, py, out}, 0, 1, NULL, &rt_function_table);
        for (int i = 0; i < N; i++) {
          double got = ir_load_double(t, out, i), u = ulps(wide, got, rows[r].one ? rows[r].one(x[i]) : rows[r].two(x[i], y[i]));
          if (u > worst) worst = u, worst_x = x[i], worst_y = y[i], worst_got = got;
        }
      }
      if (show) printf("%-10s %-4s %-8s %.3f ulp at %.17g %.17g: %.17g\n", levels[l], tt_dtype_name(t), ir_ops[rows[r].op].name, worst, worst_x, worst_y, worst_got);
      cr_expect(worst <= rows[r].limit[wide], "%s %s %s: %g ulp at x=%.17g y=%.17g: %.17g", levels[l], tt_dtype_name(t), ir_ops[rows[r].op].name, worst, worst_x, worst_y, worst_got);
    }
    rt_code_free(loaded);
    for (int r = 0; r < 2 * N_ROWS; r++) lp_free(ks[r]);
  }
}

Test(math, f32_errors, .timeout = 300) { measure(TT_F32); }
Test(math, f64_errors, .timeout = 300) { measure(TT_F64); }
