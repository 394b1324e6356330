/* selftest.c: every op of the language, compiled, against its meaning in plain C. Elementwise ops are judged in units in the last place
 * (samples.c says how many), whole numbers to the bit, sums and products twice: with small whole numbers, whose results are exact, and with
 * any numbers against the same sum in f64. A convolution stays one here: Winograd's form, which is not exact for whole numbers, is an op with samples of its own. */
#include "selftest.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "reference.h"
#include "samples.h"

const cli_option cli_selftest_options[] = {
  {"cpu", "NAME", "compile for x86-64-v2, x86-64-v3, x86-64-v4, x86-64-v4+bf16, x86-64-v4+amx or native"},
  {"op", "NAME", "this op only"},
  {"skip", "a,b", "optional passes left out"},
  {"threads", "N", "for the reference cases (default: as many as this process may use)"},
  {NULL, NULL, NULL},
};

typedef struct { ir_ref row[8]; void *data[8]; int n; } sample_inputs;

static sample_inputs find_inputs(const ir_graph *g, ir_op op, uint64_t seed, bool exact) {
  sample_inputs in = {0};
  for (ir_ref r = 1; r < g->n_nodes; r++) {
    const ir_node *n = ir_at(g, r);
    if (n->op != IR_input && n->op != IR_param) continue;
    tt_shape s = ir_shape(g, r);
    void *data = aligned_alloc(64, ((size_t)tt_shape_count(&s) * tt_dtype_size(n->dtype) + 64) / 64 * 64);
    if (!data) break;
    sample_fill(g, op, r, seed, exact, data);
    in.row[in.n] = r, in.data[in.n++] = data;
  }
  return in;
}

static void free_inputs(sample_inputs *in) {
  for (int i = 0; i < in->n; i++) free(in->data[i]);
}

/* What the graph means: output 0, by the interpreter's evaluation. inputs belong to a graph with rows in the same order. */
static void *oracle(const ir_graph *g, const sample_inputs *in, tt_error *err) {
  ir_graph *plain = NULL;
  void *result = NULL;
  if (pass_run(g, &plain, "decompose", NULL, &(pass_options){0}, NULL, NULL, err) != TT_OK) return NULL;
  void **values = calloc(plain->n_nodes, sizeof *values);
  for (int i = 0, r = 1; values && r < (int)plain->n_nodes; r++)
    if ((ir_at(plain, r)->op == IR_input || ir_at(plain, r)->op == IR_param) && i < in->n) values[r] = in->data[i++];
  if (values && ir_eval(plain, values, err) == TT_OK) {
    ir_ref y = plain->outputs[0].value;
    tt_shape s = ir_shape(plain, y);
    size_t bytes = (size_t)tt_shape_count(&s) * tt_dtype_size(ir_at(plain, y)->dtype);
    if ((result = malloc(bytes + 1))) memcpy(result, values[y], bytes);
  }
  if (values) ir_values_free(plain, values);
  ir_graph_free(plain);
  return result;
}

static double ulp_of(tt_dtype t, double v) {
  static const struct { int bits, least; } real[] = {[TT_F32] = {23, -126}, [TT_F64] = {52, -1022}, [TT_F16] = {10, -14}, [TT_BF16] = {7, -126}};
  int e;
  frexp(v, &e);
  e -= 1;
  return ldexp(1, (e < real[t].least ? real[t].least : e) - real[t].bits);
}

/* How far got is from want: 0 equal; above 1 wrong. *raw is the distance in ulps where that is the measure. */
static double distance(tt_dtype t, const void *got, const void *want, int64_t i, int ulps, double tolerance, double *raw) {
  if (memcmp((const char *)got + (size_t)i * tt_dtype_size(t), (const char *)want + (size_t)i * tt_dtype_size(t), tt_dtype_size(t)) == 0) return 0;
  if (!tt_dtype_in(t, TT_REAL)) return INFINITY;
  double a = ir_load_double(t, got, i), b = ir_load_double(t, want, i);
  if (isnan(a) && isnan(b)) return 0;
  if (a == b) return 0;                                            /* zeros of either sign */
  if (isnan(a) || isnan(b) || isinf(a) != isinf(b)) {
    double largest = t == TT_F16 ? 65504 : t == TT_F64 ? 1.7976931348623157e308 : 3.3895e38;       /* one side overflowed by a rounding */
    bool edge = ulps > 0 && !isnan(a) && !isnan(b) && fabs(isinf(a) ? b : a) >= largest * 0.996;
    return edge ? 0 : INFINITY;
  }
  double d = fabs(a - b);
  if (ulps >= 0) {
    *raw = d / ulp_of(t, b);
    return ulps == 0 ? INFINITY : *raw / ulps;
  }
  return d / tolerance;
}

static bool contains_sum(ir_op op) { return op == IR_sum || op == IR_prod || ir_ops[op].kind == IR_CONTRACTION || op == IR_cumsum || op == IR_scatter_add || op == IR_fold; }

static const double type_eps[] = {[TT_F32] = 1.2e-7, [TT_F64] = 2.3e-16, [TT_F16] = 9.8e-4, [TT_BF16] = 7.9e-3};

typedef struct { ir_op op; tt_dtype t; int variant; const char *cpu, *skip; selftest_row *row; rt_team *teams[2]; } sample;

static void fail(const sample *s, const char *format, ...) TT_PRINTF(2, 3);
static void fail(const sample *s, const char *format, ...) {
  if (s->row->failed++ >= 3) return;
  char text[1024];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  printf("FAILED %s %s, sample %d: %s\n", ir_ops[s->op].name, tt_dtype_name(s->t), s->variant, text);
}

static void compare(const sample *s, const ir_graph *g, const void *got, const void *want, const void *want64, bool exact, int threads) {
  ir_ref y = g->outputs[0].value;
  tt_shape shape = ir_shape(g, y);
  tt_dtype t = ir_at(g, y)->dtype;
  int64_t n = tt_shape_count(&shape);
  int ulps = sample_ulp(s->op, s->t);
  if (ulps < 0 && (exact || ir_ops[s->op].kind == IR_MOVEMENT || ir_ops[s->op].kind == IR_LEAF)) ulps = 0;
  if (ulps < 0 && (s->op == IR_amax || s->op == IR_amin || s->op == IR_argmax || s->op == IR_argmin || (ir_ops[s->op].kind == IR_INDEX && s->op != IR_scatter_add))) ulps = 0;
  if (exact && (ir_ops[s->op].kind == IR_COMPOSITE || ir_is_attention(s->op) || s->op == IR_prod)) ulps = -1;
  double largest = 0, worst = 0;
  for (int64_t i = 0; want && tt_dtype_in(t, TT_REAL) && i < n; i++) {
    double v = fabs(ir_load_double(t, want, i));
    if (v > largest && isfinite(v)) largest = v;
  }
  double tolerance = tt_dtype_in(t, TT_REAL) ? 64 * type_eps[t] * (largest > 1 ? largest : 1) : 0;
  for (int64_t i = 0; i < n; i++) {
    double raw = 0, d;
    if (want64) {
      double a = ir_load_double(t, got, i), b = ((const double *)want64)[i];
      uint64_t rounded[1];
      ir_store_double(t, rounded, 0, b);                             /* a number beyond the type's is infinite in it */
      d = a == b || a == ir_load_double(t, rounded, 0) || (isnan(a) && isnan(b)) ? 0 : fabs(a - b) / tolerance;
      if (isnan(d)) d = INFINITY;
    } else d = distance(t, got, want, i, ulps, tolerance, &raw);
    if (d > 1) {
      double b = want64 ? ((const double *)want64)[i] : ir_load_double(t, want, i);
      fail(s, "element %lld of %lld is %.9g, not %.9g (%s%d threads)", (long long)i, (long long)n, ir_load_double(t, got, i), b, exact ? "whole numbers, " : "", threads);
      return;
    }
    if (raw > worst) worst = raw;
  }
  if (worst > s->row->worst) s->row->worst = worst;
}

/* The same sample with every real type f64 and the same numbers. */
static double *oracle64(const sample *s, const ir_graph *g, const sample_inputs *in, tt_error *err) {
  ir_graph *wide = ir_graph_new("sample");
  double *result = NULL;
  sample_inputs copy = {0};
  if (wide && sample_build(wide, s->op, TT_F64, s->variant)) {
    copy = find_inputs(wide, s->op, 1, true);
    for (int i = 0; i < copy.n; i++) {
      tt_shape shape = ir_shape(g, in->row[i]);
      tt_dtype from = ir_at(g, in->row[i])->dtype, to = ir_at(wide, copy.row[i])->dtype;
      for (int64_t k = 0; k < tt_shape_count(&shape); k++) {
        if (from == to) memcpy((char *)copy.data[i] + (size_t)k * tt_dtype_size(to), (char *)in->data[i] + (size_t)k * tt_dtype_size(from), tt_dtype_size(to));
        else ir_store_double(to, copy.data[i], k, ir_load_double(from, in->data[i], k));
      }
    }
    result = oracle(wide, &copy, err);
  }
  free_inputs(&copy);
  ir_graph_free(wide);
  return result;
}

static void run_sample(const sample *s, const ir_graph *g, rt_program *p, bool exact) {
  tt_error err = {0};
  sample_inputs in = find_inputs(g, s->op, (uint64_t)s->variant * 31 + s->t + 1, exact);
  void *want = oracle(g, &in, &err);
  double *want64 = !exact && contains_sum(s->op) && tt_dtype_in(s->t, TT_REAL) ? oracle64(s, g, &in, &err) : NULL;
  for (int threads = 1; want && threads <= 2; threads++) {
    rt_instance *x = rt_instance_new(p, s->teams[threads - 1], &err);
    tt_tensor *param = NULL;
    for (int i = 0; x && i < in.n; i++) {
      const ir_node *n = ir_at(g, in.row[i]);
      tt_shape shape = ir_shape(g, in.row[i]);
      if (rt_slot_find(p, ir_str(n, "name")) < 0) continue;         /* not needed */
      tt_tensor *t = tt_tensor_from(n->dtype, &shape, in.data[i], &err);
      if (t) rt_bind(x, ir_str(n, "name"), t, &err);
      if (n->op == IR_param) param = tt_tensor_retain(t);
      tt_tensor_free(t);
    }
    if (x && !err.status && rt_run(x, &err) == TT_OK) {
      tt_tensor *y = rt_bound(x, "y");
      if (y) compare(s, g, tt_tensor_data(y), want, want64, exact, threads);
      else fail(s, "has no output y");
      if (s->op == IR_assign && param) {
        tt_shape shape = tt_tensor_shape(param);
        if (memcmp(tt_tensor_data(param), in.data[1], (size_t)tt_shape_count(&shape) * tt_dtype_size(s->t)) != 0) fail(s, "the param is not what was assigned to it");
      }
    }
    tt_tensor_free(param);
    rt_instance_free(x);
  }
  if (err.status) fail(s, "%s", err.message);
  free(want);
  free(want64);
  free_inputs(&in);
}

selftest_row selftest_op(ir_op op, const char *cpu, const char *skip) {
  selftest_row row = {0};
  char left_out[256];
  snprintf(left_out, sizeof left_out, "%s%swinograd", skip ? skip : "", skip && *skip ? "," : "");
  sample s = {.op = op, .cpu = cpu, .skip = left_out, .row = &row};
  tt_error err = {0};
  s.teams[0] = rt_team_new(1, &err), s.teams[1] = rt_team_new(2, &err);
  for (int t = 0; t < TT_N_DTYPES && s.teams[0] && s.teams[1]; t++) {
    tt_dtype dtype = (tt_dtype)t;
    if (op == IR_select ? false : !tt_dtype_in(dtype, ir_ops[op].takes)) continue;
    for (s.t = dtype, s.variant = 0;; s.variant++) {
      ir_graph *g = ir_graph_new("sample");
      if (!g || !sample_build(g, op, dtype, s.variant)) {
        ir_graph_free(g);
        break;
      }
      row.samples++;
      rt_program *p = NULL;
      tt_error failed = g->error;
      tt_compile_options o = {.backend = "jit", .cpu = cpu, .skip = s.skip};
      bool built = !failed.status;
      if (!built || tt_compile(g, &o, &p, &failed) != TT_OK) fail(&s, "%s", failed.message);
      else {
        run_sample(&s, g, p, false);
        if (contains_sum(op)) run_sample(&s, g, p, true);
      }
      rt_program_free(p);
      ir_graph_free(g);
      if (!built) break;
    }
  }
  if (err.status) fail(&s, "%s", err.message);
  rt_team_free(s.teams[0]);
  rt_team_free(s.teams[1]);
  return row;
}

int cli_selftest(const cli_args *a) {
  tt_error err = {0};
  const char *cpu = cli_get(a, "cpu", NULL), *only = cli_get(a, "op", NULL);
  int64_t threads;
  cg_cpu target;
  if (a->n_words > 1) return cli_usage(a, "one folder at most");
  if (!cli_int(a, "threads", 0, 0, &threads)) return 2;
  if (cg_cpu_get(cpu, &target, &err)) return cli_fail(&err);
  if (a->n_words == 1) {
    reference_tally tally = {0};
    if (!reference_run(a->words[0], cpu, (int)threads, &tally, &err)) return cli_fail(&err);
    return tally.failed ? 1 : 0;
  }
  if (only && ir_op_by_name(only, strlen(only)) == IR_poison) {
    const char *names[IR_N_OPS];
    int n = 0;
    for (int op = 1; op < IR_N_OPS; op++) names[n++] = ir_ops[op].name;
    names[n] = NULL;
    return cli_unknown("op", only, names);
  }
  int failed = 0, samples = 0;
  printf("%-22s %8s %8s %10s\n", "op", "samples", "failed", "worst ulp");
  for (int op = 1; op < IR_N_OPS; op++) {
    if (only && strcmp(ir_ops[op].name, only) != 0) continue;
    selftest_row row = selftest_op((ir_op)op, cpu, cli_get(a, "skip", NULL));
    printf("%-22s %8d %8d %10.3g\n", ir_ops[op].name, row.samples, row.failed, row.worst);
    fflush(stdout);
    failed += row.failed, samples += row.samples;
  }
  printf("%d samples, %d failed, compiled for %s\n", samples, failed, cpu ? cpu : target.name);
  return failed ? 1 : 0;
}
