/* figures.c: `bench ops` and `bench models`: workload by workload, ours against whoever else can do it, by turns. */
#include "bench.h"

#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
  const cli_args *a;
  bench_ruler ruler;
  bench_target target;
  int threads;
  double seconds;
  const char *peers;               /* the folder; NULL: none */
  json_t *run;
} session;

/* What crosses memory must at least take this long: a meter of the row's size, read between turns. */
typedef struct { rt_meter *meter; double best; } stream;
static void sample_stream(void *user) {
  stream *s = user;
  double v = s->meter ? rt_meter_sample(s->meter) : 0;
  if (v > s->best) s->best = v;
}

static int wait_for_peers(const cli_args *a, const bench_workload *w, bench_side *sides, int first, int n) {
  double until = bench_now() + bench_peers_patience(a);

  for (int i = first; i < n; i++) {
    if (!sides[i].error[0] && !bench_peer_ready(&sides[i], until - bench_now()) && sides[i].self) {      /* what is late must not compile on while others are timed */
      sides[i].close(&sides[i]);
      sides[i].self = NULL;
    }
    if (!sides[i].error[0] && (sides[i].flops != bench_flops(w) || sides[i].bytes != bench_bytes(w)))
      snprintf(sides[i].error, sizeof sides[i].error, "it counts %.0f operations and %.0f bytes, not %.0f and %.0f: the work is not the same", sides[i].flops, sides[i].bytes, bench_flops(w), bench_bytes(w));
  }
  return n;
}

static bool is_product(const bench_workload *w) { return !strncmp(w->family->what, "matmul", 6) || !strcmp(w->family->what, "bmm"); }

enum { DRAM = 256 << 20 };         /* no more of memory is read to know how fast it is, and 4 times the last cache */

static bool one(session *s, const bench_workload *w, tt_error *err) {
  bench_side sides[BENCH_MOST_SIDES] = {0};
  int n = 1;
  bool op = !strcmp(w->family->kind, "op"), decode = w->family->model != NULL;
  if (!(decode ? bench_decode(&sides[0], w, &s->ruler, &s->target, err) : bench_ours(&sides[0], w, s->ruler.team, &s->target, err))) return false;
  bench_facts facts = decode ? (bench_facts){0} : bench_ours_facts(&sides[0]);
  for (int i = 0; i < s->a->n_given && is_product(w) && n < BENCH_MOST_SIDES; i++)
    if (!strcmp(s->a->given[i]->name, "blas")) bench_blas(&sides[n++], s->a->values[i], w, s->threads);
  if (s->peers) n = wait_for_peers(s->a, w, sides, n, n + bench_peers_start(s->a, w, s->threads, &s->ruler.inherited, sides + n, BENCH_MOST_SIDES - n));
  double traffic = bench_bytes(w) > 0 ? bench_bytes(w) : facts.in + facts.out;
  bool reads = decode || (facts.out < 0.1 * facts.in && !facts.params);
  stream of = {0};
  if (decode) of.meter = rt_meter_new(RT_METER_READ, (size_t)fmin(traffic, fmax(DRAM, 4.0 * (double)bench_number(json_object_get(s->run, "machine"), "l3"))), s->ruler.team, err);
  else if (op && traffic >= 4096) of.meter = rt_meter_new(reads ? RT_METER_READ : RT_METER_COPY, (size_t)traffic, s->ruler.team, err);
  bench_ruler_row(&s->ruler);
  bench_turns(sides, n, &(bench_patience){s->seconds, s->peers != NULL}, &s->ruler, sample_stream, &of);
  rt_meter_free(of.meter);
  json_t *row = bench_row_new(w, sides, n);
  double noise = bench_ruler_noise(&s->ruler);
  json_object_set_new(row, "threads", json_integer(s->threads));
  json_object_set_new(row, "kernels", json_integer(facts.kernels));
  json_object_set_new(row, "compile_ms", json_real(facts.compile_ms));
  json_object_set_new(row, "workspace_mib", json_real((facts.plan - facts.in - facts.out - facts.params) / 1048576));
  json_object_set_new(row, "winograd", json_boolean(facts.winograd));
  json_object_set_new(row, "noise", json_real(noise));
  json_object_set_new(row, "quiet", json_boolean(noise <= 0.25));
  if (of.best > 0) {
    json_object_set_new(row, "traffic", json_real(traffic));
    json_object_set_new(row, "gbytes_s", json_real(of.best / 1e9));
    json_object_set_new(row, "bandwidth_of", json_string(reads ? "read" : "copy"));
  }
  bench_row_print(row, s->ruler.peak / 1e9);
  json_array_append_new(json_object_get(s->run, "rows"), row);
  for (int i = 0; i < n; i++) bench_side_close(&sides[i]);
  return true;
}

int bench_names(const cli_args *a, const char *const *usual, bench_workload *w, tt_error *err) {
  int n = 0;
  if (a->n_words == 1)
    for (; usual[n]; n++) bench_parse(usual[n], &w[n], err);
  for (int i = 1; i < a->n_words && !err->status; i++) {
    const char *word = a->words[i];
    size_t length = strlen(word);
    int before = n;
    for (int k = 0; usual[k] && n < BENCH_MOST_NAMES; k++) {
      const char *full = usual[k], *brief = strchr(full, '.') + 1;
      if ((!strncmp(full, word, length) && (full[length] == '.' || !full[length])) || (!strncmp(brief, word, length) && (brief[length] == '.' || !brief[length]))) bench_parse(full, &w[n++], err);
    }
    if (n == before && n < BENCH_MOST_NAMES) bench_parse(word, &w[n++], err);
  }
  return err->status ? -1 : n;
}

int bench_figures(const cli_args *a, bool models) {
  tt_error err = {0};
  int64_t threads;
  double patience;
  session s = {.a = a, .peers = bench_peers_folder(a)};
  if (!cli_int(a, "threads", 1, 1, &threads) || !cli_double(a, "seconds", 0.5, &s.seconds) || !cli_double(a, "patience", 300, &patience) || !bench_target_of(a, &s.target)) return 2;
  s.threads = (int)threads;
  bench_workload w[BENCH_MOST_NAMES];
  int n = bench_names(a, models ? bench_model_names : bench_op_names, w, &err);
  if (n < 0) return cli_fail(&err);
  signal(SIGPIPE, SIG_IGN);
  s.run = bench_run_new(models ? "models" : "ops", s.threads, s.target.cpu);
  int failed = 0;
  bool ok = bench_ruler_open(&s.ruler, s.threads, s.target.cpu, &err);
  if (ok) printf("%d thread%s; medians with 95%% intervals; %% of the measured f32 peak, %.1f GFLOP/s so far\n", s.threads, s.threads > 1 ? "s" : "", s.ruler.peak / 1e9);
  for (int i = 0; i < n && ok; i++) ok = one(&s, &w[i], &err);
  if (ok) {
    while (s.ruler.n_peaks < 20) bench_ruler_look(&s.ruler);
    bench_run_finish(s.run, &s.ruler);
    printf("peak: %.1f GFLOP/s, the best of %d samples\n", s.ruler.peak / 1e9, s.ruler.n_peaks);
    failed = bench_over_peak(s.run) > 0;
    failed |= bench_finish(a, s.run, &err);
  }
  json_decref(s.run);
  bench_ruler_close(&s.ruler);
  return err.status ? cli_fail(&err) : failed;
}
