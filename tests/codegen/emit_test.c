/* emit_test.c: machine code against the evaluator of the loop language (lp_eval), on kernels built by hand and at random, for every
 * element type, level of CPU and vector length. Buffers end at a page that cannot be touched. That objects have no undefined
 * symbols is checked by the compiler itself (object.c); here it is enough that every op compiles. */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "compiled.h"

static const cg_llvm_api *api(void) {
  void *module = dlopen(TT_BINARY_DIR "/lib/libtinytorch_llvm.so", RTLD_NOW | RTLD_LOCAL);
  cr_assert(module, "%s", dlerror());
  const cg_llvm_api *(*get)(void) = (const cg_llvm_api *(*)(void))dlsym(module, "cg_llvm_module");
  cr_assert(get);
  return get();
}

/* ---- numbers */

static uint64_t state = 0x9e3779b97f4a7c15;
static uint64_t bits(void) {
  state ^= state << 13, state ^= state >> 7, state ^= state << 17;
  return state * 0x2545f4914f6cdd1d;
}
static int64_t below(int64_t n) { return (int64_t)((bits() >> 11) % (uint64_t)n); }

static void set(tt_dtype t, void *data, int64_t i) {
  static const double special[] = {0, -0.0, 1, -1, INFINITY, -INFINITY, NAN, 0.5, 2, 65504, 1e-40, -1e-8, 3.4e38, 300, 1e300, 2147483648.0};
  size_t size = tt_dtype_size(t);
  char *p = (char *)data + (size_t)i * size;
  if (tt_dtype_in(t, TT_REAL)) {
    ir_store_double(t, p, 0, below(6) == 0 ? special[below(16)] : (double)(below(20001) - 10000) / 1000);
  } else {
    uint64_t v = below(3) == 0 ? (uint64_t)(below(7) - 3) : below(8) == 0 ? (uint64_t)1 << below(64) : bits();
    if (t == TT_BOOL) v &= 1;
    memcpy(p, &v, size);
  }
}

/* How far x is from the wanted y, in units of the last place of y's type; 0 when both are NaN or equal. */
static double ulps(tt_dtype t, const void *px, const void *py) {
  double x = ir_load_double(t, px, 0), y = ir_load_double(t, py, 0);
  if ((isnan(x) && isnan(y)) || x == y) return 0;
  if (!isfinite(x) || !isfinite(y)) return INFINITY;
  int digits = t == TT_F64 ? 53 : t == TT_F32 ? 24 : t == TT_F16 ? 11 : 8, lowest = t == TT_F64 ? -1074 : t == TT_F32 ? -149 : t == TT_F16 ? -24 : -133, e;
  frexp(y, &e);
  return fabs(x - y) / ldexp(1, e - digits > lowest ? e - digits : lowest);
}

/* ---- kernels run twice */

typedef struct { char *data, *map; size_t mapped, bytes; } area;

static area area_new(size_t bytes) {
  size_t page = (size_t)sysconf(_SC_PAGESIZE), mapped = (bytes + page - 1) / page * page + page;
  char *map = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  cr_assert(map != MAP_FAILED);
  mprotect(map + mapped - page, page, PROT_NONE);
  return (area){map + mapped - page - bytes, map, mapped, bytes};
}

static const char *levels[] = {"x86-64-v2", "x86-64-v3", "x86-64-v4", "native"};

/* Runs n kernels of one shape of arguments on every level the CPU has and compares all buffers within `limit` ulps. limits: one a kernel or NULL for exact. */
static void check(lp_kernel *const *ks, int n, const double *limits) {
  const cg_llvm_api *a = api();
  for (size_t l = 0; l < sizeof levels / sizeof *levels; l++) {
    cg_cpu cpu;
    tt_error err = {0};
    if (cg_cpu_get(levels[l], &cpu, NULL) != TT_OK) {      /* only compiled */
      cg_cpu_get("x86-64-v3", &cpu, NULL);
      cpu.name = levels[l], cpu.vector_bytes = 64, cpu.n_registers = 32, cpu.avx512 = true;
      for (int i = 0; i < n; i += 7) {
        char *text = a->text(&cpu, ks[i], true, &err);
        cr_assert(text, "%s\n%s", err.message, lp_print(ks[i]));
        free(text);
      }
      continue;
    }
    rt_kernel **code = calloc((size_t)n, sizeof *code);
    rt_code *loaded = compiled(a, &cpu, ks, n, code, &err);
    cr_assert(loaded, "%s: %s", levels[l], err.message);
    for (int i = 0; i < n; i++) {
      const lp_kernel *k = ks[i];
      area got[16], want[16];
      char *g[16], *w[16], *scratch = aligned_alloc(64, lp_scratch_bytes(k) + 64);
      int n_args = 0;
      for (int b = 0; b < k->n_buffers; b++) {
        if (k->buffers[b].scratch) continue;
        tt_dtype t = k->buffers[b].dtype;
        size_t bytes = (size_t)k->buffers[b].count * tt_dtype_size(t);
        got[n_args] = area_new(bytes), want[n_args] = area_new(bytes);
        for (int64_t j = 0; j < k->buffers[b].count; j++) {
          if (k->buffers[b].name[0] == 'i') {      /* an index into 'x' */
            int64_t v = below(k->buffers[0].count);
            memcpy(got[n_args].data + (size_t)j * tt_dtype_size(t), &v, tt_dtype_size(t));
          } else {
            set(t, got[n_args].data, j);
          }
        }
        if (bytes) memcpy(want[n_args].data, got[n_args].data, bytes);
        g[n_args] = got[n_args].data, w[n_args] = want[n_args].data;
        n_args++;
      }
      cr_assert(lp_eval(k, (void *const *)w, 0, k->tasks, &err) == TT_OK, "%s\n%s", err.message, lp_print(k));
      int64_t cut = below(k->tasks + 1);
      code[i]((char *const *)g, 0, cut, scratch, &rt_function_table);
      code[i]((char *const *)g, cut, k->tasks, scratch, &rt_function_table);
      for (int b = 0; b < n_args; b++) {
        tt_dtype t = k->buffers[b].dtype;
        size_t size = tt_dtype_size(t);
        for (int64_t j = 0; j < k->buffers[b].count; j++) {
          char *x = got[b].data + (size_t)j * size, *y = want[b].data + (size_t)j * size;
          bool same = tt_dtype_in(t, TT_REAL) ? ulps(t, x, y) <= (limits ? limits[i] : 0) : !memcmp(x, y, size);
          if (same) continue;
          cr_assert(same, "%s: %s[%ld] is %.17g, not %.17g (%g ulp)\n%s\n%s", levels[l], k->buffers[b].name, (long)j, ir_load_double(t, x, 0),
                    ir_load_double(t, y, 0), ulps(t, x, y), lp_print(k), getenv("SHOW") ? a->text(&cpu, k, false, NULL) : "");
        }
        munmap(got[b].map, got[b].mapped), munmap(want[b].map, want[b].mapped);
      }
      free(scratch);
    }
    free(code);
    rt_code_free(loaded);
  }
}

/* And frees them. */
static void check_all(lp_kernel **ks, int n, const double *limits) {
  check(ks, n, limits);
  for (int i = 0; i < n; i++) lp_free(ks[i]);
}

static lp_stmt *emit_store(lp_kernel *k, lp_cursor *at, int buffer, lp_ref index, lp_ref value, lp_ref guard) {
  lp_stmt *s = lp_append(k, at, LS_STORE);
  s->buffer = buffer, s->index = index, s->value = value, s->guard = guard;
  return s;
}
static void emit_local(lp_kernel *k, lp_cursor *at, int local, lp_ref value) {
  lp_stmt *s = lp_append(k, at, LS_LOCAL);
  s->local = local, s->value = value;
}
static void emit_set(lp_kernel *k, lp_cursor *at, ls_kind kind, ir_op op, int local, lp_ref index, lp_ref value) {
  lp_stmt *s = lp_append(k, at, kind);
  s->op = op, s->local = local, s->index = index, s->value = value;
}

static const int lane_counts[] = {1, 8, 16, 32, 64};
static const int64_t lengths[] = {37, 1, 64, 7, 100, 16, 3, 95, 12};

/* out[task*n + j] = op(x[..], y[..], z[..]) */
static lp_kernel *one_op(ir_op op, tt_dtype in, tt_dtype out, int arity, int lanes, int64_t n) {
  char name[64];
  snprintf(name, sizeof name, "%s_%s_%s_%d", ir_ops[op].name, tt_dtype_name(in), tt_dtype_name(out), lanes);
  lp_kernel *k = lp_new(name, 3);
  int x = lp_buffer_add(k, "x", in, 3 * n, false, false), y = lp_buffer_add(k, "y", in, 3 * n, false, false);
  int c = lp_buffer_add(k, "c", TT_BOOL, 3 * n, false, false), o = lp_buffer_add(k, "out", out, 3 * n, true, false), j = lp_var_add(k, "j", n);
  lp_cursor at = {&k->body}, inside;
  lp_for(k, &at, j, 0, n, lanes, &inside);
  lp_ref i = lp_add(k, lp_mul(k, lp_var(k, 0), n), lp_var(k, j));
  lp_ref a = lp_load(k, x, i, 0, 0), b = lp_load(k, y, i, 0, 0), s = lp_load(k, c, i, 0, 0);
  emit_store(k, &inside, o, i, arity == 3 ? lp_op(k, op, out, s, a, b) : lp_op(k, op, out, a, arity > 1 ? b : 0, 0), 0);
  return k;
}

static bool is_function(ir_op op) { return (pass_op_cost(op) >= PASS_COSTLY && op != IR_fmod) || op == IR_rsqrt; }

Test(emit, every_op_and_type, .timeout = 120) {
  static lp_kernel *ks[2000];
  static double limits[2000];
  int n = 0, pick = 0;
  for (int op = 1; op < IR_N_OPS; op++) {
    const ir_op_info *info = &ir_ops[op];
    if (info->kind != IR_ELEMENTWISE || op == IR_cast || op == IR_bitcast || op == IR_stop_gradient) continue;
    for (int t = 0; t < TT_N_DTYPES; t++) {
      if (op != IR_select && !tt_dtype_in((tt_dtype)t, info->takes)) continue;
      tt_dtype out = info->gives_bool ? TT_BOOL : (tt_dtype)t;
      limits[n] = !is_function((ir_op)op) ? 0 : t == TT_F32 ? 4 : t == TT_F64 ? 8 : 1;
      ks[n++] = one_op((ir_op)op, (tt_dtype)t, out, info->arity, lane_counts[pick % 5], lengths[pick % 9]);
      pick++;
    }
  }
  check_all(ks, n, limits);
}

Test(emit, every_cast, .timeout = 120) {
  static lp_kernel *ks[2000];
  int n = 0;
  for (int a = 0; a < TT_N_DTYPES; a++)
    for (int b = 0; b < TT_N_DTYPES; b++) {
      if (a == b) continue;
      ks[n] = one_op(IR_cast, (tt_dtype)a, (tt_dtype)b, 1, lane_counts[n % 5], lengths[n % 9]), n++;
      if (tt_dtype_size((tt_dtype)a) == tt_dtype_size((tt_dtype)b)) ks[n] = one_op(IR_bitcast, (tt_dtype)a, (tt_dtype)b, 1, lane_counts[n % 5], lengths[n % 9]), n++;
    }
  check_all(ks, n, NULL);
}

/* out[task] = reduction of x[task, 0..n]; in f32 and f64 the order of terms differs from the evaluator's: numbers are of one sign then */
Test(emit, reductions, .timeout = 120) {
  static lp_kernel *ks[2000];
  static double limits[2000];
  static const ir_op ops[] = {IR_add, IR_mul, IR_max, IR_min, IR_and, IR_or};
  int n = 0;
  for (int o = 0; o < 6; o++)
    for (int t = 0; t < TT_N_DTYPES; t++) {
      if (!tt_dtype_in((tt_dtype)t, ir_ops[ops[o]].takes)) continue;
      bool real = tt_dtype_in((tt_dtype)t, TT_REAL), ordered = real && o < 2;
      int lanes = lane_counts[n % 5];
      int64_t length = lengths[n / 2 % 9];
      lp_kernel *k = lp_new("reduce", 4);
      int x = lp_buffer_add(k, "x", (tt_dtype)t, 4 * length, false, false), out = lp_buffer_add(k, "out", (tt_dtype)t, 4, true, false);
      int j = lp_var_add(k, "j", length), acc = lp_local_add(k, "acc", (tt_dtype)t, 2);
      lp_cursor at = {&k->body}, inside;
      lp_ref v = lp_load(k, x, lp_add(k, lp_mul(k, lp_var(k, 0), length), lp_var(k, j)), 0, 0);
      if (ordered) {      /* |v| < 8 becomes |v|/16 + 3/4, anything else 1: sums and products stay in range */
        tt_dtype d = (tt_dtype)t;
        lp_ref size = lp_op(k, IR_abs, d, v, 0, 0), near = lp_op(k, IR_add, d, lp_op(k, IR_mul, d, size, lp_const(k, d, 0.0625), 0), lp_const(k, d, 0.75), 0);
        v = lp_op(k, IR_select, d, lp_op(k, IR_lt, TT_BOOL, size, lp_const(k, d, 8), 0), near, lp_const(k, d, 1));
      }
      emit_local(k, &at, acc, lp_const(k, (tt_dtype)t, 1));
      lp_for(k, &at, j, 0, length, lanes, &inside);
      emit_set(k, &inside, LS_REDUCE, ops[o], acc, lp_int(k, 1), v);
      emit_store(k, &at, out, lp_var(k, 0), lp_op(k, ops[o], (tt_dtype)t, lp_get(k, acc, lp_int(k, 0)), lp_get(k, acc, lp_int(k, 1)), 0), 0);
      limits[n] = ordered ? 100 : 0;
      ks[n++] = k;
    }
  check_all(ks, n, limits);
}

/* Quotients and remainders of places up to 2^31, which are products and shifts. Steps are no multiples of the divisor, which would be divided at once. */
Test(emit, quotients) {
  enum { N = 1000 };
  static lp_kernel *ks[100];
  static const int64_t by[] = {3, 5, 7, 9, 10, 34, 100, 641, 12289, 1000003, 536870909, 2147483629};
  int n = 0;
  for (size_t i = 0; i < sizeof by / sizeof *by; i++)
    for (int far = 0; far < 2; far++) {
      lp_kernel *k = lp_new("quotients", 1);
      int out = lp_buffer_add(k, "out", TT_I64, 2 * N, true, false), j = lp_var_add(k, "j", N);
      lp_cursor at = {&k->body}, inside;
      lp_for(k, &at, j, 0, N, 1, &inside);
      lp_ref a = lp_add(k, lp_mul(k, lp_var(k, j), far ? 2147473 : 1), lp_int(k, 1));            /* a prime */
      emit_store(k, &inside, out, lp_var(k, j), lp_div(k, a, by[i]), 0);
      emit_store(k, &inside, out, lp_add(k, lp_var(k, j), lp_int(k, N)), lp_mod(k, a, by[i]), 0);
      ks[n++] = k;
    }
  check_all(ks, n, NULL);
}

/* ---- kernels at random */

typedef struct {
  lp_kernel *k;
  tt_dtype t;
  int x, y, index, out, scratch;
  int open[16], n_open;              /* loop variables */
  int locals[32], n_locals;          /* readable here */
  int64_t sites;                     /* stores made so far: each has a part of `out` of its own */
  bool in_vector;
  int base;                          /* locals before the vector loop: it must not set those */
} maker;

enum { COUNT = 3000, SITE = 400, MAX_SITES = 12, SCRATCH = 64 };

/* An index into x that stays inside: sum of variables * small numbers. */
static lp_ref index_of(maker *m) {
  lp_kernel *k = m->k;
  lp_ref r = lp_int(k, below(40));
  for (int i = 0; i < m->n_open; i++) {
    int64_t c = below(4) == 0 ? 0 : below(3) == 0 ? 1 + below(4) : 1;
    lp_ref v = lp_var(k, m->open[i]);
    if (below(8) == 0) v = lp_div(k, v, 1 + below(5));
    if (below(8) == 0) v = lp_mod(k, v, 1 + below(9));
    r = lp_add(k, r, lp_mul(k, v, c));
  }
  return r;
}

static lp_ref guard_of(maker *m) {
  lp_kernel *k = m->k;
  lp_ref a = lp_op(k, below(2) ? IR_lt : IR_ge, TT_BOOL, index_of(m), lp_int(k, below(90)), 0);
  return below(3) ? a : lp_op(k, IR_and, TT_BOOL, a, lp_op(k, IR_ne, TT_BOOL, index_of(m), lp_int(k, 50), 0), 0);
}

static lp_ref expression(maker *m, int depth) {
  lp_kernel *k = m->k;
  tt_dtype t = m->t;
  if (depth == 0 || below(6) == 0) {
    switch (below(7)) {
    case 0: return lp_const(k, t, (double)(below(9) - 4));
    case 1: case 2: if (m->n_locals) return lp_get(k, m->locals[below(m->n_locals)], lp_int(k, below(2))); /* fall through */
    case 3: return lp_load(k, below(2) ? m->x : m->y, index_of(m), 0, 0);
    case 4: return lp_load(k, m->x, lp_op(k, IR_cast, TT_I64, lp_load(k, m->index, index_of(m), 0, 0), 0, 0), 0, 0);
    case 5: {      /* outside of x when the guard is false */
      lp_ref i = index_of(m), g = lp_op(k, IR_lt, TT_BOOL, i, lp_int(k, COUNT - 40 + below(40)), 0), far = lp_add(k, i, lp_int(k, below(40)));
      g = lp_op(k, IR_and, TT_BOOL, g, lp_op(k, IR_lt, TT_BOOL, far, lp_int(k, 100), 0), 0);
      lp_ref deep = lp_mul(k, lp_add(k, far, lp_int(k, 0)), 1 + below(2) * 30);
      g = lp_op(k, IR_and, TT_BOOL, g, lp_op(k, IR_lt, TT_BOOL, deep, lp_int(k, COUNT), 0), 0);
      return lp_load(k, m->x, deep, g, below(2) ? 0 : expression(m, 0));
    }
    default: return lp_op(k, IR_cast, t, index_of(m), 0, 0);
    }
  }
  static const ir_op real[] = {IR_add, IR_sub, IR_mul, IR_max, IR_min, IR_div, IR_neg, IR_abs, IR_relu, IR_sqrt};
  static const ir_op ints[] = {IR_add, IR_sub, IR_mul, IR_max, IR_min, IR_div, IR_fmod, IR_neg, IR_xor, IR_shr};
  static const ir_op logic[] = {IR_and, IR_or, IR_xor, IR_not};
  ir_op op = t == TT_BOOL ? logic[below(4)] : tt_dtype_in(t, TT_REAL) ? real[below(10)] : ints[below(10)];
  if (below(8) == 0) return lp_op(k, IR_select, t, t == TT_BOOL ? expression(m, 0) : guard_of(m), expression(m, depth - 1), expression(m, depth - 1));
  lp_ref a = expression(m, depth - 1), b = ir_ops[op].arity > 1 ? expression(m, depth - 1) : 0;
  return lp_op(k, op, t, a, b, 0);
}

static void make_body(maker *m, lp_cursor *at, int depth, int budget) {
  lp_kernel *k = m->k;
  int n_locals = m->n_locals;
  for (int i = 0; i < budget; i++) {
    switch (below(8)) {
    case 0: {
      int l = lp_local_add(k, "t", m->t, 2);
      emit_local(k, at, l, expression(m, 2));
      if (m->n_locals < 32) m->locals[m->n_locals++] = l;
      break;
    }
    case 1:      /* also from loops further inside */
      if (m->n_locals > (m->in_vector ? m->base : 0)) emit_set(k, at, LS_SET, IR_poison, m->locals[m->n_locals - 1], lp_int(k, below(2)), expression(m, 2));
      break;
    case 2: case 3:
      if (m->sites < MAX_SITES) {      /* element: all open variables, each at most 20 times */
        lp_ref i2 = lp_int(k, 0);
        int64_t size = 1;
        for (int v = m->n_open - 1; v > 0; v--, size *= 20) i2 = lp_add(k, lp_mul(k, lp_var(k, m->open[v]), size), i2);
        i2 = lp_add(k, lp_mul(k, lp_var(k, 0), SITE * MAX_SITES * 20), lp_add(k, i2, lp_int(k, m->sites * SITE * 20)));
        emit_store(k, at, m->out, i2, expression(m, 3), below(3) ? 0 : guard_of(m))->stream = below(2) ? LP_CHECK : 0;
        m->sites++;
      }
      break;
    case 4: case 5:
      if (depth > 0 && m->n_open < 4) {
        bool vector = !m->in_vector && below(3) > 0, reduces = vector && m->n_locals > 0 && !tt_dtype_in(m->t, TT_REAL) && below(2);
        int64_t end = 1 + below(20);
        int var = lp_var_add(k, "v", end), old = m->n_locals;
        lp_cursor inside;
        lp_for(k, at, var, end > 4 && below(4) == 0 ? 1 + below(3) : 0, end, vector ? below(8) == 0 ? 6 : lane_counts[below(5)] : 1, &inside);
        m->open[m->n_open++] = var;
        if (vector) m->in_vector = true, m->base = m->n_locals;
        if (reduces) {      /* a reduction's local is not read in its loop */
          int target = m->locals[m->n_locals - 1];
          m->n_locals--;
          emit_set(k, &inside, LS_REDUCE, m->t == TT_BOOL ? IR_or : below(2) ? IR_add : IR_max, target, lp_int(k, below(2)), expression(m, 2));
        } else {
          int keep_locals[32];
          memcpy(keep_locals, m->locals, sizeof keep_locals);
          make_body(m, &inside, depth - 1, 3);
          memcpy(m->locals, keep_locals, sizeof keep_locals);
        }
        m->n_locals = old;
        if (vector) m->in_vector = false;
        m->n_open--;
      }
      break;
    case 6:
      if (depth > 0 && !m->in_vector) {
        lp_stmt *s = lp_append(k, at, LS_IF);
        s->guard = guard_of(m);
        lp_cursor inside = {&s->body};
        int old = m->n_locals;
        make_body(m, &inside, depth - 1, 2);
        m->n_locals = old;
      }
      break;
    default: break;
    }
  }
  m->n_locals = n_locals;
}

/* SITE * 20 elements are enough for a store under three loops of at most 20. */
static lp_kernel *random_kernel(tt_dtype t) {
  maker m = {.k = lp_new("random", 3), .t = t};
  m.x = lp_buffer_add(m.k, "x", t, COUNT, false, false);
  m.y = lp_buffer_add(m.k, "y", t, COUNT, false, false);
  m.index = lp_buffer_add(m.k, "i", below(2) ? TT_I32 : TT_I64, COUNT, false, false);
  m.out = lp_buffer_add(m.k, "out", t, 3 * SITE * MAX_SITES * 20, true, false);
  m.open[m.n_open++] = 0;
  lp_cursor at = {&m.k->body};
  do make_body(&m, &at, 3, 6);
  while (m.sites < 3);
  return m.k;
}

Test(emit, random_kernels, .timeout = 300) {
  enum { N = 40 };
  static lp_kernel *ks[N];
  const char *seed = getenv("SEED"), *rounds = getenv("ROUNDS");
  if (seed) state += strtoull(seed, NULL, 0) * 0x9e3779b97f4a7c15;
  for (int round = 0; round < (rounds ? atoi(rounds) : 1); round++) {
    for (int i = 0; i < N; i++) {
      state = state * 6364136223846793005 + 1442695040888963407;
      ks[i] = random_kernel((tt_dtype)(i % TT_N_DTYPES));
    }
    check_all(ks, N, NULL);
  }
}

/* ---- by hand */

/* Scratch written by one loop and read by the next, in another order; a sum carried by a loop around an if. */
Test(emit, scratch_and_order) {
  lp_kernel *k = lp_new("scratch", 5);
  int x = lp_buffer_add(k, "x", TT_F32, 5 * 50, false, false), out = lp_buffer_add(k, "out", TT_F32, 5 * 50, true, false);
  int pad = lp_buffer_add(k, "pad", TT_I8, 3, true, true), tmp = lp_buffer_add(k, "tmp", TT_F32, 50, true, true);
  int j = lp_var_add(k, "j", 50), i = lp_var_add(k, "i", 50), s = lp_local_add(k, "s", TT_F32, 1);
  lp_cursor at = {&k->body}, inside, again;
  lp_ref row = lp_mul(k, lp_var(k, 0), 50);
  emit_store(k, &at, pad, lp_int(k, 2), lp_const(k, TT_I8, 7), 0);
  lp_for(k, &at, j, 0, 50, 16, &inside);
  emit_store(k, &inside, tmp, lp_var(k, j), lp_op(k, IR_mul, TT_F32, lp_load(k, x, lp_add(k, row, lp_var(k, j)), 0, 0), lp_const(k, TT_F32, 2), 0), 0);
  emit_local(k, &at, s, lp_const(k, TT_F32, 0));
  lp_for(k, &at, i, 0, 50, 1, &again);
  lp_ref back = lp_load(k, tmp, lp_add(k, lp_int(k, 49), lp_mul(k, lp_var(k, i), -1)), 0, 0);
  lp_stmt *c = lp_append(k, &again, LS_IF);
  c->guard = lp_op(k, IR_gt, TT_BOOL, back, lp_const(k, TT_F32, 0), 0);
  lp_cursor then = {&c->body};
  emit_set(k, &then, LS_SET, IR_poison, s, 0, lp_op(k, IR_max, TT_F32, lp_get(k, s, 0), lp_load(k, tmp, lp_add(k, lp_int(k, 49), lp_mul(k, lp_var(k, i), -1)), 0, 0), 0));
  emit_store(k, &again, tmp, lp_var(k, i), lp_get(k, s, 0), 0);
  emit_store(k, &again, out, lp_add(k, row, lp_var(k, i)), lp_op(k, IR_add, TT_F32, lp_load(k, tmp, lp_int(k, 0), 0, 0), lp_load(k, tmp, lp_var(k, i), 0, 0), 0), 0);
  check_all(&k, 1, NULL);
}

/* Random words, on aligned and unaligned rows. */
Test(emit, random_numbers) {
  lp_kernel *ks[20];
  int n = 0;
  for (int l = 0; l < 5; l++)
    for (int row = 0; row < 4; row++) {
      static const int64_t rows[] = {128, 64, 37, 48};
      lp_kernel *k = lp_new("philox", 4);
      int seed = lp_buffer_add(k, "seed", TT_U64, 1, false, false), step = lp_buffer_add(k, "step", TT_U64, 1, false, false);
      int out = lp_buffer_add(k, "out", TT_U16, 4 * rows[row], true, false), j = lp_var_add(k, "j", rows[row]);
      lp_cursor at = {&k->body}, inside;
      lp_for(k, &at, j, 0, rows[row], lane_counts[l], &inside);
      lp_ref i = lp_add(k, lp_mul(k, lp_var(k, 0), rows[row]), lp_var(k, j)), zero = lp_int(k, 0);
      emit_store(k, &inside, out, i, lp_philox(k, lp_load(k, seed, zero, 0, 0), lp_load(k, step, zero, 0, 0), i, 5 + row), 0);
      ks[n++] = k;
    }
  check_all(ks, n, NULL);
}

/* Columns across the lanes, loaded and stored: as many as make squares, and a few more or less. */
Test(emit, columns) {
  static const int counts[] = {2, 4, 8, 10, 13};
  static const tt_dtype types[] = {TT_F32, TT_F64, TT_I32, TT_F16};
  lp_kernel *ks[200];
  int n = 0;
  for (int l = 1; l < 4; l++)
    for (int i = 0; i < 5; i++)
      for (int t = 0; t < 4; t++)
        for (int stores = 0; stores < 3; stores++) {
          int lanes = lane_counts[l], c = counts[i], rows = lanes + (i & 1), length = stores == 2 ? c : 40;
          lp_kernel *k = lp_new("columns", 3);
          int x = lp_buffer_add(k, "x", types[t], 3 * rows * length, false, false), out = lp_buffer_add(k, "out", types[t], 3 * rows * length, true, false);
          int v = lp_var_add(k, "v", rows), u = lp_var_add(k, "u", c);
          lp_cursor at = {&k->body}, inside, column;
          lp_for(k, &at, v, 0, rows, lanes, &inside);
          lp_for(k, &inside, u, 0, c, 0, &column)->unroll = true;
          lp_ref start = lp_mul(k, lp_var(k, 0), rows * length), across = lp_add(k, lp_add(k, start, lp_mul(k, lp_var(k, v), length)), lp_var(k, u));
          lp_ref along = lp_add(k, lp_add(k, start, lp_mul(k, lp_var(k, u), rows)), lp_var(k, v));
          lp_ref value = lp_load(k, x, stores == 1 ? along : across, 0, 0);
          emit_store(k, &column, out, stores == 0 ? along : across, lp_op(k, IR_add, types[t], value, value, 0), 0);
          lp_unroll(k);
          ks[n++] = k;
        }
  check_all(ks, n, NULL);
}

/* Stores past the caches, and loads ahead of their time: into aligned buffers and others, of whole lines and of rows that end within one. */
Test(emit, streams) {
  static const int64_t rows[] = {64, 160, 37, 48, 1000};
  lp_kernel *ks[50];
  int n = 0;
  for (int l = 0; l < 5; l++)
    for (int row = 0; row < 5; row++)
      for (tt_dtype t = TT_F32; t <= TT_F64; t = (tt_dtype)(t + TT_F64 - TT_F32)) {
        lp_kernel *k = lp_new("stream", 4);
        int x = lp_buffer_add(k, "x", t, 4 * rows[row], false, false), out = lp_buffer_add(k, "out", t, 4 * rows[row], true, false), j = lp_var_add(k, "j", rows[row]);
        lp_cursor at = {&k->body}, inside;
        lp_for(k, &at, j, 0, rows[row], lane_counts[l], &inside);
        lp_ref i = lp_add(k, lp_mul(k, lp_var(k, 0), rows[row]), lp_var(k, j)), v = lp_load(k, x, i, 0, 0);
        lp_stmt *ahead = lp_append(k, &inside, LS_PREFETCH);
        ahead->buffer = x, ahead->index = lp_add(k, i, lp_int(k, rows[row]));
        emit_store(k, &inside, out, i, lp_op(k, IR_add, t, v, v, 0), 0)->stream = LP_CHECK;
        ks[n++] = k;
      }
  cg_cpu cpu;
  tt_error err = {0};
  cr_assert_eq(cg_cpu_get("x86-64-v2", &cpu, &err), TT_OK);
  char *text = api()->text(&cpu, ks[2 * 5 * 2], true, &err);      /* 16 lanes, rows of 64 */
  cr_assert(text && strstr(text, "movnt") && strstr(text, "prefetch") && strstr(text, "sfence"), "%s", text ? text : err.message);
  free(text);
  check_all(ks, n, NULL);
}

/* What a guard protects is not touched when it is false: loads in the value of a guarded store, in the index of a guarded load, with scalar
 * and vector guards; an empty buffer is never read. */
Test(emit, guards_protect) {
  static lp_kernel *ks[64];
  int n = 0;
  for (int kind = 0; kind < 4; kind++)
    for (int l = 0; l < 5; l++)
      for (int t = 0; t < 3; t++) {
        static const tt_dtype types[] = {TT_F32, TT_I8, TT_F64};
        lp_kernel *k = lp_new("guards", 6);
        int x = lp_buffer_add(k, "x", types[t], 40, false, false), i = lp_buffer_add(k, "i", TT_I32, 40, false, false);
        int nothing = lp_buffer_add(k, "nothing", types[t], 0, false, false), out = lp_buffer_add(k, "out", types[t], 6 * 50, true, false), j = lp_var_add(k, "j", 50);
        lp_cursor at = {&k->body}, inside;
        lp_for(k, &at, j, 0, 50, lane_counts[l], &inside);
        lp_ref v = lp_var(k, j), task = lp_var(k, 0), to = lp_add(k, lp_mul(k, task, 50), v), by_lane = lp_op(k, IR_lt, TT_BOOL, v, lp_int(k, 40), 0);
        lp_ref by_task = lp_op(k, IR_lt, TT_BOOL, task, lp_int(k, 3), 0), far = lp_mul(k, task, 18), none = lp_load(k, nothing, v, lp_op(k, IR_gt, TT_BOOL, v, lp_int(k, 99), 0), lp_const(k, types[t], 3));
        lp_ref from_index = lp_op(k, IR_cast, TT_I64, lp_load(k, i, v, 0, 0), 0, 0);
        if (kind == 0) emit_store(k, &inside, out, to, lp_op(k, IR_add, types[t], lp_load(k, x, v, 0, 0), none, 0), by_lane);
        if (kind == 1) emit_store(k, &inside, out, to, lp_op(k, IR_add, types[t], lp_load(k, x, far, 0, 0), none, 0), by_task);
        if (kind == 2) emit_store(k, &inside, out, to, lp_load(k, x, from_index, by_lane, lp_const(k, types[t], 7)), 0);
        if (kind == 3) emit_store(k, &inside, out, to, lp_load(k, x, far, lp_op(k, IR_and, TT_BOOL, by_task, lp_op(k, IR_ge, TT_BOOL, v, lp_int(k, 9), 0), 0), none), 0);
        ks[n++] = k;
      }
  check_all(ks, n, NULL);
}

/* The register tile of a product: its inner loop is loads and FMAs, and no spill, on AVX2 (6x16) and on AVX-512 (14x32). */
Test(emit, tile_stays_in_registers) {
  for (int level = 3; level <= 4; level++) {
    enum { K = 64 };
    int rows = level == 3 ? 6 : 14, lanes = level == 3 ? 16 : 32;
    lp_kernel *k = lp_new("tile", 8);
    int a = lp_buffer_add(k, "a", TT_F32, 8 * rows * K, false, false), b = lp_buffer_add(k, "b", TT_F32, K * lanes, false, false);
    int out = lp_buffer_add(k, "out", TT_F32, 8 * rows * lanes, true, false), j = lp_var_add(k, "j", lanes), p = lp_var_add(k, "k", K), acc = lp_local_add(k, "acc", TT_F32, rows);
    lp_cursor at = {&k->body}, inside, deepest;
    lp_for(k, &at, j, 0, lanes, lanes, &inside);
    emit_local(k, &inside, acc, lp_const(k, TT_F32, 0));
    lp_for(k, &inside, p, 0, K, 1, &deepest);
    lp_ref column = lp_load(k, b, lp_add(k, lp_mul(k, lp_var(k, p), lanes), lp_var(k, j)), 0, 0);
    for (int r = 0; r < rows; r++) {
      lp_ref row = lp_add(k, lp_mul(k, lp_var(k, 0), rows), lp_int(k, r));
      emit_set(k, &deepest, LS_SET, IR_poison, acc, lp_int(k, r), lp_fma(k, lp_load(k, a, lp_add(k, lp_mul(k, row, K), lp_var(k, p)), 0, 0), column, lp_get(k, acc, lp_int(k, r))));
      emit_store(k, &inside, out, lp_add(k, lp_mul(k, row, lanes), lp_var(k, j)), lp_get(k, acc, lp_int(k, r)), 0);
    }
    cg_cpu cpu;
    tt_error err = {0};
    cg_cpu_get("native", &cpu, NULL);
    cpu = (cg_cpu){.name = level == 3 ? "x86-64-v3" : "x86-64-v4", .features = "", .level = level, .vector_bytes = level == 3 ? 32 : 64, .n_registers = level == 3 ? 16 : 32,
                   .fma = true, .avx2 = true, .avx512 = level == 4, .f16c = true, .masks = true};
    char *text = api()->text(&cpu, k, true, &err);
    cr_assert(text, "%s", err.message);
    int fma = 0, spills = 0;      /* of the innermost loop: between the last label before the FMAs and its jump */
    char *first = strstr(text, "vfmadd"), *loop = first;
    cr_assert(first, "%s", text);
    while (loop > text && strncmp(loop, "\n.LBB", 5)) loop--;
    for (char *line = loop + 1; *line; line = strchr(line, '\n') + 1) {
      char *end = strchr(line, '\n');
      *end = 0;
      fma += strstr(line, "vfmadd") != NULL;
      spills += strstr(line, "(%rsp)") != NULL;
      bool last = strstr(line, "\tj") == line;
      *end = '\n';
      if (last) break;
    }
    cr_expect(fma == 2 * rows && spills == 0, "%d FMAs, %d spills in\n%s", fma, spills, text);
    free(text);
    lp_free(k);
  }
}

/* A loop variable used outside of its loop is an error with the three parts, not a crash. */
Test(emit, mistakes_come_back) {
  lp_kernel *k = lp_new("wrong", 2);
  int out = lp_buffer_add(k, "out", TT_F32, 2, true, false), j = lp_var_add(k, "j", 2);
  lp_cursor at = {&k->body};
  emit_store(k, &at, out, lp_var(k, j), lp_const(k, TT_F32, 1), 0);
  cg_cpu cpu;
  tt_error err = {0};
  cr_assert(cg_cpu_get("x86-64-v2", &cpu, &err) == TT_OK, "%s", err.message);
  cr_assert(!api()->text(&cpu, k, false, &err));
  cr_assert(err.status == TT_INTERNAL && strstr(err.message, "loop variable") && strstr(err.message, "fix:"), "%s", err.message);
  lp_free(k);
}
