/* The harness without a clock: the work of every workload is what the peers' own table says, statistics, names, sides that die or lie, turns,
 * the JSON, comparisons. A fake peer, a shell script that answers the protocol, stands for the frameworks. */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../runtime/files.h"
#include "bench/bench.h"
#include "frontend/models/models.h"

/* What workloads.py says: flops, bytes. */
static const struct { const char *name; double flops, bytes; } known[] = {
  {"train.mlp.b128", 410779648, 0},
  {"train.cnn.b64", 2442067968, 0},
  {"train.resnet20.b64", 15615639552, 0},
  {"train.vit.b32", 53371338752, 0},
  {"train.gpt.b4", 69627543552, 0},
  {"infer.mlp.b1", 1337344, 0},
  {"infer.mlp.b64", 85590016, 0},
  {"infer.cnn.b1", 13308928, 0},
  {"infer.cnn.b64", 851771392, 0},
  {"infer.resnet20.b1", 81626368, 0},
  {"infer.resnet20.b64", 5224087552, 0},
  {"infer.vit.b1", 552870400, 0},
  {"infer.vit.b64", 35383705600, 0},
  {"infer.gpt.b1", 5751767040, 0},
  {"op.matmul.64x64x64", 524288, 0},
  {"op.matmul.128x128x128", 4194304, 0},
  {"op.matmul.256x256x256", 33554432, 0},
  {"op.matmul.512x512x512", 268435456, 0},
  {"op.matmul.1024x1024x1024", 2147483648, 0},
  {"op.matmul.2048x2048x2048", 17179869184, 0},
  {"op.matmul.128x512x784", 102760448, 0},
  {"op.matmul.64x256x4096", 134217728, 0},
  {"op.matmul.1024x1536x384", 1207959552, 0},
  {"op.matmul.1x768x768", 1179648, 0},
  {"op.matmul.128x10x512", 1310720, 0},
  {"op.matmul_nt.256x256x256", 33554432, 0},
  {"op.matmul_tn.256x256x256", 33554432, 0},
  {"op.bmm.32x65x65x32", 8652800, 0},
  {"op.conv.64_64_32_64_3_1", 4831838208, 0},
  {"op.conv_bwd.64_64_32_64_3_1", 14495514624, 0},
  {"op.conv.64_3_32_32_3_1", 113246208, 0},
  {"op.conv.64_128_16_128_3_1", 4831838208, 0},
  {"op.conv.64_64_32_128_1_1", 1073741824, 0},
  {"op.conv.64_64_32_128_3_2", 2415919104, 0},
  {"op.softmax.4096x1024", 0, 33554432},
  {"op.layernorm.4096x1024", 0, 33554432},
  {"op.gelu.4096x1024", 0, 33554432},
  {"op.add.4096x1024", 0, 50331648},
  {"op.transpose.4096x1024", 0, 33554432},
  {"op.sum.4096x1024", 0, 16777216},
  {"op.adamw.16777216", 0, 469762048},
  {"op.attention.4_6_256_64_causal", 201326592, 0},
  {"op.attention_bwd.4_6_256_64_causal", 704643072, 0},
  {"op.attention.1_8_1024_64", 2147483648, 0},
  {"op.attention_bwd.1_8_1024_64", 7516192768, 0},
  {"op.conv.4_32_16_32_3_2_32", 147456, 0},
  {"op.conv_bwd.2_8_9_16_5_2_4", 240000, 0},
  {"train.resnet20.b7", 1707960576, 0},
  {"infer.cnn.b3", 39926784, 0},
  {"op.attention.2_3_8_16", 24576, 0},
};
enum { N_KNOWN = sizeof known / sizeof *known };

Test(bench, work_is_that_of_the_peers) {
  for (int i = 0; i < N_KNOWN; i++) {
    bench_workload w;
    tt_error err = {0};
    cr_assert(bench_parse(known[i].name, &w, &err), "%s", err.message);
    cr_assert_eq(bench_flops(&w), known[i].flops, "%s: %.0f flops, not %.0f", w.name, bench_flops(&w), known[i].flops);
    cr_assert_eq(bench_bytes(&w), known[i].bytes, "%s: %.0f bytes, not %.0f", w.name, bench_bytes(&w), known[i].bytes);
  }
}

/* The same asked of workloads.py itself, where it and Python are. */
Test(bench, work_is_that_of_workloads_py) {
  const char *set = getenv("TINYTORCH_PEERS_DIR");
  char command[6000], line[200];
  const char *peers = set ? set : TT_SOURCE_DIR "/../shared/peers";
  int length = snprintf(command, sizeof command, "%s/workloads.py", peers);
  if (access(command, R_OK) != 0 || system("python3 -c 0 2>/dev/null") != 0) {
    printf("SKIPPED work_is_that_of_workloads_py: no %s, or no python3\n", command);
    return;
  }
  length = snprintf(command, sizeof command, "python3 -B -c 'import sys; sys.path.insert(0, \"%s\"); import workloads as w\nfor n in sys.argv[1:]: print(n, int(w.flops(n)), w.bytes_moved(n))'", peers);
  for (int i = 0; i < N_KNOWN; i++) length += snprintf(command + length, sizeof command - (size_t)length, " %s", known[i].name);
  FILE *f = popen(command, "r");
  int n = 0;
  while (f && fgets(line, sizeof line, f)) {
    char name[120];
    double flops, bytes;
    bench_workload w;
    cr_assert_eq(sscanf(line, "%119s %lf %lf", name, &flops, &bytes), 3);
    cr_assert(bench_parse(name, &w, NULL));
    cr_assert_eq(bench_flops(&w), flops, "%s: %.0f flops, not %.0f", name, bench_flops(&w), flops);
    cr_assert_eq(bench_bytes(&w), bytes, "%s: %.0f bytes, not %.0f", name, bench_bytes(&w), bytes);
    n++;
  }
  cr_assert(f && pclose(f) == 0);
  cr_assert_eq(n, N_KNOWN);
}

/* What a token reads of the weights: all parameters but the table of positions, of which it reads a row. */
Test(bench, a_token_reads_the_weights_once) {
  static const char *const names[] = {"decode.gpt.b1", "decode.gpt2.b1_512"};
  for (int i = 0; i < 2; i++) {
    bench_workload w;
    cr_assert(bench_parse(names[i], &w, NULL) && bench_flops(&w) == 0 && bench_context(&w) == (i ? 512 : 128));
    tt_trace *t = tt_trace_new("gpt", false);
    tt_error err = {0};
    ir_graph *g;
    double bytes = 0;
    tt_output(t, "y", w.family->model(tt_input(t, "x", TT_I32, TT_SHAPE(1, 1)), &(model_config){.classes = w.family->classes}));
    cr_assert_eq(tt_trace_finish(t, &g, &err), TT_OK, "%s", err.message);
    for (ir_ref r = 1; r < g->n_nodes; r++) {
      const ir_node *n = ir_at(g, r);
      tt_shape s = ir_shape(g, r);
      if (n->op == IR_param && r != ir_find(g, "wpe.weight")) bytes += 4.0 * (double)tt_shape_count(&s);
    }
    cr_assert_eq(bench_bytes(&w), bytes, "%s: %.0f bytes, not %.0f", names[i], bench_bytes(&w), bytes);
    ir_graph_free(g);
    tt_trace_free(t);
  }
}

Test(bench, wrong_names_say_what_is_right) {
  static const char *const wrong[] = {"op.matmul.64x64", "op.matmul.64x64x64x64", "op.matmul.0x1x1", "op.matmul.-1x1x1", "op.matmul.1x1x1z", "op.matmul", "train.cnn.64", "train.cnn.bx", "infer.nothing.b1", "decode.gpt.b2", "decode.gpt.b1_0", "decode.mlp.b1", "op.conv.1_3_8_8_3",
                                      "op.conv.1_3_8_8_3_1_2", "op.softmax.9999999999x9999999999", "op.attention.1_2_3_4_casual", ""};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    bench_workload w;
    tt_error err = {0};
    cr_assert(!bench_parse(wrong[i], &w, &err), "%s is taken", wrong[i]);
    cr_assert(strstr(err.message, "error: ") == err.message && strstr(err.message, "\n  fix: "), "%s", err.message);
  }
  bench_workload w;
  cr_assert(bench_parse("matmul.3x4x5", &w, NULL) && !strcmp(w.name, "op.matmul.3x4x5"));
  cr_assert(bench_parse("op.attention.1_2_3_4_causal", &w, NULL) && w.causal && w.n == 4);
  cr_assert(bench_parse("op.conv.1_8_8_8_3_1_8", &w, NULL) && w.n == 7);
}

/* Every family that is in the language traces, compiles and runs. */
Test(bench, every_family_runs, .timeout = 300) {
  static const char *const small[] = {"bN", "b2", "bN_L", "b2_3", "MxNxK", "5x7x9", "BxMxNxK", "2x5x7x9", "N_C_H_K_R_S[_G]", "2_4_6_8_3_2_2", "RxC", "6x20", "N_C_H", "2_5_3", "N", "30", "B_H_T_D[_causal]", "1_2_3_4", "b1[_T]", "b1_5"};
  tt_error err = {0};
  rt_team *team = rt_team_new(2, &err);
  for (const bench_family *f = bench_families; f->kind; f++) {
    char name[100];
    const char *sizes = NULL;
    for (size_t i = 0; i < sizeof small / sizeof *small; i += 2)
      if (!strcmp(small[i], f->sizes)) sizes = small[i + 1];
    cr_assert(sizes, "%s.%s has sizes %s", f->kind, f->what, f->sizes);
    snprintf(name, sizeof name, "%s.%s.%s", f->kind, f->what, sizes);
    bench_workload w;
    bench_side s;
    double ms[2];
    cr_assert(bench_parse(name, &w, &err), "%s", err.message);
    if (f->model) {
      if (f->model == model_gpt2) continue;              /* half a GB */
      cr_assert(bench_decode(&s, &w, &(bench_ruler){.team = team}, &(bench_target){0}, &err) && s.run(&s, 2, ms) && ms[0] > 0, "%s: %s%s", name, err.message, s.error);
      bench_side_close(&s);
      continue;
    }
    cr_assert(bench_ours(&s, &w, team, &(bench_target){0}, &err), "%s: %s", name, err.message);
    if (f->trace) cr_assert(s.run(&s, 2, ms) && ms[0] > 0, "%s: %s", name, s.error);
    else cr_assert(!strcmp(s.error, "not in the language yet"));
    bench_facts facts = bench_ours_facts(&s);
    cr_assert(!f->trace || (facts.kernels > 0 && facts.in + facts.params > 0));
    bench_side_close(&s);
  }
  for (int i = 0; bench_op_names[i]; i++) {
    bench_workload w;
    cr_assert(bench_parse(bench_op_names[i], &w, &err), "%s", err.message);
  }
  for (int i = 0; bench_model_names[i]; i++) {
    bench_workload w;
    cr_assert(bench_parse(bench_model_names[i], &w, &err), "%s", err.message);
  }
  rt_team_free(team);
}

Test(bench, statistics) {
  double a[] = {5, 1, 4, 2, 3}, b[200], c[200];
  bench_stat s = bench_stats(a, 5);
  cr_assert(s.median == 3 && s.best == 1 && s.n == 5 && s.low >= 1 && s.low <= 3 && s.high >= 3 && s.high <= 5);
  cr_assert(a[0] == 5 && a[4] == 3, "the samples were moved");
  uint64_t state = 7;
  for (int i = 0; i < 200; i++) b[i] = 10 + bench_random(&state), c[i] = 1.1 * (10 + bench_random(&state));
  bench_stat one = bench_ratio(b, 100, b + 100, 100), more = bench_ratio(c, 200, b, 200);
  cr_assert(one.low < 1.01 && one.high > 0.99, "%g %g", one.low, one.high);
  cr_assert(more.low > 1.05 && more.high < 1.15 && more.low <= more.median && more.median <= more.high, "%g %g %g", more.low, more.median, more.high);
  cr_assert_eq(bench_stats(a, 1).low, 5);
}

/* -- Peers ---------------------------------------------------------------------------------------------------------------------------- */

/* Answers as workloads.py's programs do; what kind of trouble it makes is its framework's name. Each turn is written to `log`. */
static const char fake[] =
  "#!/bin/sh\n"
  "case $1 in\n"
  "  cannot) echo '{\"framework\": \"cannot\", \"error\": \"not implemented\"}'; exit 3;;\n"
  "  dies) echo 'Traceback:' >&2; echo 'ImportError: no such thing' >&2; exit 1;;\n"
  "  prints) echo 'Hello!'; read line; exit 0;;\n"
  "esac\n"
  "flops=33554432; [ $1 = lies ] && flops=1\n"
  "echo \"{\\\"framework\\\": \\\"$1\\\", \\\"version\\\": \\\"1.2\\\", \\\"flops\\\": $flops, \\\"bytes\\\": 0, \\\"once_ms\\\": 0.5}\"\n"
  "while read n; do\n"
  "  echo \"$1 $n\" >>\"$(dirname \"$0\")/log\"\n"
  "  [ $1 = leaves ] && { echo 'Killed by nobody' >&2; exit 9; }\n"
  "  [ $1 = short ] && n=1\n"
  "  list=9.5; i=1; while [ $i -lt $n ]; do list=\"$list, 0.5\"; i=$((i+1)); done\n"
  "  echo \"[$list]\"\n"
  "done\n";

static folder fake_peers(void) {
  folder f = folder_new();
  put(in(&f, "peer"), fake, sizeof fake - 1);
  cr_assert_eq(chmod(in(&f, "peer"), 0755), 0);
  signal(SIGPIPE, SIG_IGN);
  return f;
}

Test(bench, a_peer_answers) {
  folder f = fake_peers();
  bench_side s;
  double ms[3];
  cr_assert(bench_peer_start(&s, f.dir, "good", "op.matmul.256x256x256", 1, &(bench_cores){0}) && bench_peer_ready(&s, 20), "%s", s.error);
  cr_assert(!strcmp(s.version, "1.2") && s.once == 0.5 && s.flops == 33554432 && bench_peer_figure(&s, "once_ms") == 0.5);
  cr_assert(s.run(&s, 3, ms) && ms[0] == 9.5 && ms[1] == 0.5 && ms[2] == 0.5, "%s", s.error);
  bench_side_close(&s);
  folder_remove(&f);
}

Test(bench, a_peer_in_trouble_says_so) {
  static const struct { const char *framework, *says; } cases[] = {{"cannot", "it cannot: not implemented"}, {"dies", "it died: ImportError: no such thing"}, {"prints", "no JSON"}};
  folder f = fake_peers();
  double ms[3];
  bench_side s;
  for (int i = 0; i < 3; i++) {
    cr_assert(bench_peer_start(&s, f.dir, cases[i].framework, "op.matmul.256x256x256", 1, &(bench_cores){0}));
    cr_assert(!bench_peer_ready(&s, 20) && strstr(s.error, cases[i].says), "%s says: %s", cases[i].framework, s.error);
    bench_side_close(&s);
  }
  cr_assert(bench_peer_start(&s, f.dir, "leaves", "op.matmul.256x256x256", 1, &(bench_cores){0}) && bench_peer_ready(&s, 20));
  cr_assert(!s.run(&s, 3, ms) && strstr(s.error, "it died: Killed by nobody"), "%s", s.error);
  bench_side_close(&s);
  cr_assert(bench_peer_start(&s, f.dir, "short", "op.matmul.256x256x256", 1, &(bench_cores){0}) && bench_peer_ready(&s, 20));
  cr_assert(!s.run(&s, 3, ms) && strstr(s.error, "no list of so many times"), "%s", s.error);
  bench_side_close(&s);
  cr_assert(!bench_peer_start(&s, "/nowhere", "good", "op.add.1x1", 1, &(bench_cores){0}) && strstr(s.error, "no program"));
  bench_side_close(&s);
  folder_remove(&f);
}

static const char *const order[] = {"first", "leaves", "second"};

Test(bench, sides_take_turns, .timeout = 100) {
  folder f = fake_peers();
  bench_side s[3];
  bench_ruler r;
  tt_error err = {0};
  cr_assert(bench_ruler_open(&r, 1, NULL, &err), "%s", err.message);
  for (int i = 0; i < 3; i++) cr_assert(bench_peer_start(&s[i], f.dir, order[i], "op.matmul.256x256x256", 1, &r.inherited) && bench_peer_ready(&s[i], 20), "%s", s[i].error);
  bench_turns(s, 3, &(bench_patience){0.05, true}, &r, NULL, NULL);
  cr_assert(r.peak > 1e8 && r.n_peaks > 20 && r.n_probes > 0 && bench_ruler_noise(&r) <= 1);
  /* 9.5 ms, the first of each turn, is dropped; who died is left out, the others go on */
  for (int i = 0; i < 3; i++) {
    if (i == 1) {
      cr_assert(s[i].n_ms == 0 && strstr(s[i].error, "it died"));
      continue;
    }
    cr_assert(s[i].n_ms >= 250 && !s[i].error[0], "%d: %s", s[i].n_ms, s[i].error);
    for (int k = 0; k < s[i].n_ms; k++) cr_assert_eq(s[i].ms[k], 0.5);
  }
  char line[100], last[40] = "";
  int turns = 0, warm = 0;
  FILE *log = fopen(in(&f, "log"), "r");
  while (log && fgets(line, sizeof line, log)) {
    char who[40];
    int n;
    cr_assert_eq(sscanf(line, "%39s %d", who, &n), 2);
    if (n < 20) {
      warm++;
      continue;
    }
    cr_assert_eq(n, 51);                              /* 25 ms of 0.5, and one more */
    cr_assert(strcmp(who, last) != 0, "two turns of %s", who);
    strcpy(last, who);
    turns++;
  }
  cr_assert(log && turns >= 10 && warm >= 5);
  fclose(log);
  bench_workload w;
  cr_assert(bench_parse("op.matmul.256x256x256", &w, NULL));
  json_t *row = bench_row_new(&w, s, 3);
  cr_assert(!strcmp(bench_text(bench_row_best(row), "framework"), "first"));
  json_decref(row);
  for (int i = 0; i < 3; i++) bench_side_close(&s[i]);
  bench_ruler_close(&r);
  folder_remove(&f);
}

/* -- What comes of it -------------------------------------------------------------------------------------------------------------------- */

/* A run of one row whose samples lie around ms, of `framework`s. */
static json_t *synthetic(double ms, double peak) {
  bench_side s[2] = {{.framework = "tinytorch"}, {.framework = "other", .version = "3.1"}};
  bench_workload w;
  uint64_t state = 3;
  cr_assert(bench_parse("op.matmul.256x256x256", &w, NULL));
  for (int i = 0; i < 2; i++) {
    s[i].ms = malloc(500 * sizeof *s[i].ms), s[i].n_ms = s[i].cap_ms = 500;
    for (int k = 0; k < 500; k++) s[i].ms[k] = (ms + i) * (1 + 0.02 * bench_random(&state));
  }
  json_t *run = bench_run_new("ops", 1, NULL), *row = bench_row_new(&w, s, 2);
  json_object_set_new(row, "threads", json_integer(1));
  json_array_append_new(json_object_get(run, "rows"), row);
  bench_ruler r = {.peak = peak, .n_peaks = 25};
  bench_run_finish(run, &r);
  for (int i = 0; i < 2; i++) free(s[i].ms);
  return run;
}

Test(bench, json_has_all_that_a_reader_needs) {
  json_t *run = synthetic(1, 1e11), *row = json_array_get(json_object_get(run, "rows"), 0), *ours = json_array_get(json_object_get(row, "results"), 0);
  cr_assert(!strcmp(bench_text(run, "what"), "ops") && bench_number(run, "schema") == 1 && strlen(bench_text(run, "date")) == 20 && bench_number(run, "threads") == 1);
  cr_assert(bench_text(json_object_get(run, "machine"), "cpu")[0] && bench_number(json_object_get(run, "machine"), "cores") >= 1);
  cr_assert(!strcmp(bench_text(json_object_get(run, "versions"), "other"), "3.1") && bench_text(json_object_get(run, "versions"), "compiler")[0]);
  cr_assert(bench_number(run, "peak_gflops") == 100 && bench_number(run, "peak_samples") == 25);
  cr_assert(!strcmp(bench_text(row, "workload"), "op.matmul.256x256x256") && bench_number(row, "flops") == 33554432);
  cr_assert(fabs(bench_number(row, "bound_ms") - 0.33554432) < 1e-9);
  cr_assert(bench_number(ours, "low_ms") <= bench_number(ours, "median_ms") && bench_number(ours, "median_ms") <= bench_number(ours, "high_ms") && bench_number(ours, "best_ms") >= 1 && bench_number(ours, "runs") == 500);
  size_t n = json_array_size(json_object_get(ours, "samples"));
  cr_assert(n > 100 && n <= 201, "%zu samples", n);
  json_decref(run);
}

Test(bench, over_the_peak_is_an_error) {
  json_t *run = synthetic(0.3, 1e11), *fine = synthetic(0.4, 1e11);
  cr_assert_eq(bench_over_peak(run), 1);
  cr_assert_eq(bench_over_peak(fine), 0);
  json_object_set_new(json_array_get(json_object_get(run, "rows"), 0), "winograd", json_true());
  cr_assert_eq(bench_over_peak(run), 0);
  json_decref(run), json_decref(fine);
}

Test(bench, comparisons_name_what_is_slower) {
  tt_error err = {0};
  json_t *old = synthetic(1, 1e11), *same = synthetic(1.005, 1e11), *slower = synthetic(1.1, 1e11), *faster = synthetic(0.9, 1e11), *slow_machine = synthetic(1.1, 0.9e11), *other = bench_run_new("models", 1, NULL);
  cr_assert_eq(bench_compare(old, same, "old.json", &err), 0);
  cr_assert_eq(bench_compare(old, slower, "old.json", &err), 1);
  cr_assert_eq(bench_compare(old, faster, "old.json", &err), 0);
  cr_assert_eq(bench_compare(old, slow_machine, "old.json", &err), 0, "the machine was slower, not the program");
  json_t *broken = synthetic(1, 1e11);
  json_array_set_new(json_object_get(json_array_get(json_object_get(broken, "rows"), 0), "results"), 0, json_pack("{s:s, s:s}", "framework", "tinytorch", "error", "no"));
  cr_assert_eq(bench_compare(old, broken, "old.json", &err), 1);
  cr_assert_eq(err.status, TT_OK);
  bench_compare(other, slower, "old.json", &err);
  cr_assert_eq(err.status, TT_INVALID);
  json_decref(old), json_decref(same), json_decref(slower), json_decref(faster), json_decref(slow_machine), json_decref(other), json_decref(broken);
}

/* A run of one workload of ours in ms, another's in other_ms (0: none). */
static bench_verdict judged(const char *what, const char *workload, double ms, const char *other, double other_ms) {
  bench_side s[2] = {{.framework = "tinytorch"}, {.error = ""}};
  bench_workload w;
  cr_assert(bench_parse(workload, &w, NULL));
  snprintf(s[1].framework, sizeof s[1].framework, "%s", other ? other : "");
  s[0].ms = &ms, s[0].n_ms = 1, s[1].ms = &other_ms, s[1].n_ms = other != NULL;
  json_t *run = bench_run_new(what, 1, NULL), *row = bench_row_new(&w, s, other ? 2 : 1);
  json_object_set_new(json_object_get(run, "machine"), "vector_bytes", json_integer(32));
  json_object_set_new(json_object_get(run, "machine"), "l1d", json_integer(32 << 10));
  json_object_set_new(row, "threads", json_integer(1));
  if (bench_bytes(&w) > 0) json_object_set_new(row, "traffic", json_real(bench_bytes(&w))), json_object_set_new(row, "gbytes_s", json_real(10));
  json_array_append_new(json_object_get(run, "rows"), row);
  bench_run_finish(run, &(bench_ruler){.peak = 1e11, .n_peaks = 20});
  bench_verdict v = bench_judge(run, row);
  json_decref(run);
  return v;
}

Test(bench, bars_follow_from_sizes) {
  double m256 = 0.33554432;                              /* at the peak */
  bench_verdict v = judged("ops", "op.matmul.256x256x256", m256 / 0.96, NULL, 0);
  cr_assert(v.item == 1 && v.met, "%s, %s", v.figure, v.bar);
  cr_assert(!judged("ops", "op.matmul.256x256x256", m256 / 0.94, NULL, 0).met);
  cr_assert(judged("ops", "op.matmul.256x256x256", m256 / 0.96, "libopenblas", m256 / 0.97).met);
  cr_assert(!judged("ops", "op.matmul.256x256x256", m256 / 0.96, "libopenblas", m256 / 1.1).met, "slower than a BLAS");
  cr_assert(judged("ops", "op.matmul.1024x1024x1024", 21.47483648 / 0.92, NULL, 0).met, "91 of 100 from 768 on");
  cr_assert(judged("ops", "op.matmul.250x252x256", 2e-8 * 250 * 252 * 256 / 0.95, NULL, 0).met, "the lanes that 252 fill");
  v = judged("ops", "op.conv.64_64_32_64_3_1", 48.31838208 / 0.9, "jax", 100);
  cr_assert(v.item == 2 && !v.met, "Winograd has another bar: %s", v.bar);
  cr_assert(judged("ops", "op.conv.64_64_32_64_3_1", 48.31838208 / 1.4, "jax", 100).met);
  cr_assert(!judged("ops", "op.conv.64_64_32_64_3_1", 48.31838208 / 1.4, "jax", 40).met);
  cr_assert(judged("ops", "op.conv_dw.64_64_32_64_3_1", 48.31838208 / 1.33, NULL, 0).met);
  cr_assert(judged("ops", "op.add.4096x1024", 5.0331648 / 0.9, NULL, 0).item == 3 && judged("ops", "op.add.4096x1024", 5.0331648 / 0.9, NULL, 0).met && !judged("ops", "op.add.4096x1024", 5.0331648 / 0.8, NULL, 0).met);
  cr_assert_eq(judged("ops", "op.add.2x1024", 1, NULL, 0).item, 0);
  double cnn = 24.42067968;
  cr_assert(judged("models", "train.cnn.b64", cnn / 0.76, "torch", 1.5 * cnn).met, "enough of the bound, and ahead");
  cr_assert(!judged("models", "train.cnn.b64", cnn / 0.76, "torch", cnn).met, "enough of the bound, but not ahead");
  cr_assert(!judged("models", "train.cnn.b64", cnn / 0.5, "torch", cnn).met);
  cr_assert(judged("models", "train.cnn.b64", cnn / 0.5, "torch", 4.1 * cnn).met);
  cr_assert(judged("models", "infer.cnn.b64", 8.51771392 / 0.86, NULL, 0).item == 5);
  cr_assert(judged("ops", "op.kernels.1000", 0.049, NULL, 0).met && !judged("ops", "op.kernels.1000", 0.051, NULL, 0).met && judged("ops", "train.tiny.b1", 0.0029, NULL, 0).met);
  cr_assert(!judged("memory", "train.cnn.b64", 30, "torch", 50).met && judged("memory", "train.cnn.b64", 30, NULL, 0).item == 8);
  cr_assert(judged("ops", "op.matmul.256x256x256", 1, NULL, 0).limit[0] && judged("compile", "train.cnn.b64", 1, NULL, 0).item == 7);
}

/* Issue 5's: the same runs, with bars of their own. */
Test(bench, bars_of_modern_networks) {
  double attention = 4.0 * 8 * 1024 * 1024 * 64 / 1e8, gpt = judged("models", "train.gpt.b4", 1, NULL, 0).item;
  bench_verdict v = judged("ops", "op.attention.1_8_1024_64", attention / 0.81, "torch", 1.1 * attention / 0.81);
  cr_assert(v.item == BENCH_MODERN + 4 && v.met, "%s, %s", v.figure, v.bar);
  cr_assert(!judged("ops", "op.attention.1_8_1024_64", attention / 0.79, "torch", 1.3 * attention / 0.79).met && judged("ops", "op.attention.1_8_1024_64", attention / 0.5, "torch", 1.5 * attention / 0.5).met);
  cr_assert(judged("ops", "op.attention_bwd.1_8_1024_64", 3.5 * attention / 0.81, NULL, 0).met && judged("models", "infer.vit.b1", 1, NULL, 0).item == BENCH_MODERN + 4 && gpt == BENCH_MODERN + 4);
  cr_assert(judged("compile", "train.gpt.b4", 699, NULL, 0).item == BENCH_MODERN + 6 && !judged("compile", "train.gpt.b4", 701, NULL, 0).met);
  cr_assert(judged("memory", "train.gpt.b4", 30, NULL, 0).item == BENCH_MODERN + 5);
  for (int i = 0; i < 3; i++) {                            /* beside its own kernel, of the same sizes */
    json_t *run = json_pack("{s:s, s:f, s:{s:s}, s:[{s:s, s:i, s:[{s:f}]}, {s:s, s:i, s:[{s:f}]}]}", "what", "ops", "peak_gflops", 100.0, "machine", "compiles_for", "native", "rows", "workload", "op.attention_naive.1_8_1024_64", "threads", 1,
                            "results", "median_ms", i ? 19.0 : 21.0, "workload", i < 2 ? "op.attention.1_8_1024_64" : "op.attention.1_8_1024_64_causal", "threads", 1, "results", "median_ms", 2.0);
    v = bench_judge(run, json_array_get(json_object_get(run, "rows"), 0));
    cr_assert(i == 2 ? v.item == 0 : v.item == BENCH_MODERN + 4 && v.met == !i, "%d: %s", i, v.figure);
    json_decref(run);
  }
}

/* A run of what passes or fails; a budget; an instruction set that was asked for. */
Test(bench, bars_of_rows_that_are_no_times) {
  json_t *run = json_pack("{s:s, s:{}, s:[{s:s, s:i, s:i, s:b, s:s, s:s}]}", "what", "checks", "machine", "rows", "workload", "equal bits", "threads", 2, "item", 9, "met", 1, "figure", "f", "bar", "passes");
  json_t *row = json_array_get(json_object_get(run, "rows"), 0);
  bench_verdict v = bench_judge(run, row);
  cr_assert(v.item == 9 && v.met && !strcmp(v.figure, "f"));
  json_object_set_new(row, "met", json_false());
  cr_assert(!bench_judge(run, row).met);
  json_decref(run);
  static const struct { double plan, grown, ratio; bool met; } cases[] = {{59, 61, 1.3, true}, {61, 61, 1.3, false}, {59, 63, 1.3, false}, {59, 61, 1.4, false}};
  for (int i = 0; i < 4; i++) {
    run = json_pack("{s:s, s:[{s:s, s:f, s:f, s:f, s:f, s:[{s:f}]}]}", "what", "budget", "rows", "workload", "train.resnet20.b64", "budget_mib", 60.0, "plan_mib", cases[i].plan, "grown_mib", cases[i].grown, "ratio", cases[i].ratio, "results", "median_ms", 100.0);
    v = bench_judge(run, json_array_get(json_object_get(run, "rows"), 0));
    cr_assert(v.item == 8 && v.met == cases[i].met, "%d: %s", i, v.figure);
    json_decref(run);
  }
  for (int i = 0; i < 2; i++) {
    run = json_pack("{s:s, s:f, s:{s:s}, s:[{s:s, s:f, s:[{s:f}]}]}", "what", "ops", "peak_gflops", 100.0, "machine", "compiles_for", "x86-64-v3", "rows", "workload", "op.matmul.256x256x256", "flops", 33554432.0, "results", "median_ms", i ? 0.41 : 0.39);
    v = bench_judge(run, json_array_get(json_object_get(run, "rows"), 0));
    cr_assert(v.item == 11 && v.met == !i, "%s", v.figure);
    json_decref(run);
  }
}

Test(bench, over_what_memory_gives_is_an_error) {
  json_t *run = json_pack("{s:f, s:[{s:s, s:f, s:f, s:s, s:[{s:f}]}]}", "peak_gflops", 100.0, "rows", "workload", "op.sum.4096x1024", "traffic", 16777216.0, "gbytes_s", 30.0, "bandwidth_of", "read", "results", "median_ms", 0.45);
  cr_assert_eq(bench_over_peak(run), 1);
  json_object_set_new(json_array_get(json_object_get(run, "rows"), 0), "gbytes_s", json_real(36));
  cr_assert_eq(bench_over_peak(run), 0);
  json_decref(run);
}

Test(bench, files_that_are_none) {
  folder f = folder_new();
  tt_error err = {0}, second = {0}, third = {0};
  put(in(&f, "x.json"), "{\"what\": \"ops\"", 14);
  cr_assert(!bench_load(in(&f, "x.json"), &err) && err.status == TT_FORMAT, "%s", err.message);
  put(in(&f, "x.json"), "{\"what\": \"ops\"}", 15);
  cr_assert(!bench_load(in(&f, "x.json"), &second) && second.status == TT_FORMAT, "%s", second.message);
  cr_assert(!bench_load(in(&f, "none.json"), &third) && third.status == TT_IO, "%s", third.message);
  folder_remove(&f);
}

Test(bench, a_plot_is_well_formed) {
  json_t *run = synthetic(1, 1e11), *row = json_array_get(json_object_get(run, "rows"), 0);
  json_object_set_new(row, "traffic", json_real(3 * 256 * 256 * 4));
  json_object_set_new(row, "gbytes_s", json_real(40));
  json_object_set_new(row, "workload", json_string("op.<a&b>"));
  char *svg = bench_svg(run);
  cr_assert_not_null(svg);
  int open = 0;
  for (const char *c = strchr(svg, '<'); c; c = strchr(c + 1, '<')) {
    const char *end = strchr(c, '>');
    cr_assert_not_null(end);
    if (end[-1] != '/') open += c[1] == '/' ? -1 : 1;
    cr_assert(open >= 0);
  }
  cr_assert_eq(open, 0);
  cr_assert(strstr(svg, "op.&lt;a&amp;b&gt;") && strstr(svg, "roofline") && strstr(svg, "other") && !strstr(svg, "nan") && !strstr(svg, "inf"));
  free(svg);
  json_decref(run);
}

/* op.adamw does what passes/optim.def does: three steps of both. */
Test(bench, adamw_is_that_of_the_table) {
  enum { N = 30 };
  tt_error err = {0};
  bench_workload w;
  cr_assert(bench_parse("op.adamw.30", &w, &err));
  float weights[2][N], g_values[N];
  for (int i = 0; i < N; i++) g_values[i] = 0.1f * (float)(i - 15);
  tt_tensor *g_tensor = tt_tensor_from(TT_F32, &TT_SHAPE(N), g_values, &err);
  rt_team *team = rt_team_new(1, &err);
  for (int k = 0; k < 2; k++) {
    tt_trace *t = tt_trace_new("adamw", true);
    if (k) w.family->trace(t, &w);
    else {
      tt_val g = tt_input(t, "g", TT_F32, TT_SHAPE(N));
      tt_output(t, "loss", tt_sum(tt_mul(tt_param(g, "w", TT_SHAPE(N), tt_init_zeros()), g), TT_ALL, false));
    }
    ir_graph *graph;
    rt_program *p;
    cr_assert_eq(tt_trace_finish(t, &graph, &err), TT_OK, "%s", err.message);
    cr_assert_eq(tt_compile(graph, &(tt_compile_options){.train = !k, .optimizer = "adamw"}, &p, &err), TT_OK, "%s", err.message);
    rt_instance *x = rt_instance_new(p, team, &err);
    int64_t step = 0;
    double lr = 0.01;
    tt_tensor *steps = tt_tensor_from(TT_I64, &TT_SCALAR, &step, &err), *rate = tt_tensor_from(TT_F64, &TT_SCALAR, &lr, &err), *first = NULL;
    for (uint32_t i = 0; i < p->n_slots; i++) {
      const rt_slot *s = &p->slots[i];
      if (s->kind == RT_PARAM) {
        tt_tensor *zero = tt_tensor_new(s->dtype, &s->shape, &err);
        cr_assert_eq(rt_bind(x, s->name, zero, &err), TT_OK, "%s", err.message);
        if (!strcmp(s->name, "w")) first = tt_tensor_retain(zero);
        tt_tensor_free(zero);
      } else if (s->kind == RT_INPUT) cr_assert_eq(rt_bind(x, s->name, !strcmp(s->name, "g") ? g_tensor : !strcmp(s->name, "lr") ? rate : steps, &err), TT_OK, "%s", err.message);
    }
    for (int i = 0; i < 3; i++) {
      *(int64_t *)tt_tensor_data(steps) = i;
      cr_assert_eq(rt_run(x, &err), TT_OK);
    }
    memcpy(weights[k], tt_tensor_data(first), sizeof weights[k]);
    tt_tensor_free(first), tt_tensor_free(steps), tt_tensor_free(rate);
    rt_instance_free(x);
    rt_program_free(p);
    ir_graph_free(graph);
    tt_trace_free(t);
  }
  for (int i = 0; i < N; i++) cr_assert(fabs((double)weights[0][i] - (double)weights[1][i]) < 1e-7 && (i == 15 || weights[0][i] != 0), "%d: %g and %g", i, (double)weights[0][i], (double)weights[1][i]);
  rt_team_free(team);
  tt_tensor_free(g_tensor);
}
