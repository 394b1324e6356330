/* program.c: `bench program FILE [ARG ...]`: how long a program that was compiled ahead of time (`tinytorch compile --train`, its example.c) takes from its
 * start until it has its weights and could take its first step (it says whose code runs then), and until it has taken it; the data is its own matter. It
 * writes to a terminal of its own, as C's stdio then gives every line away at once. */
#define _GNU_SOURCE
#include "bench.h"

#include <errno.h>
#include <pty.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { READY, STEP, LATER, N_MARKS };
static const char *const marks[N_MARKS] = {" runs the code for ", "step 1:", "step 2:"};
static const double MOST_MS = 10;

/* ms from before the process is there until it has written each mark. */
static void start_once(char *const *words, double ms[N_MARKS], tt_error *err) {
  char text[8192];
  size_t n = 0;
  int terminal, status = 0;
  double start = bench_now();
  for (int i = 0; i < N_MARKS; i++) ms[i] = -1;
  pid_t pid = forkpty(&terminal, NULL, NULL, NULL);
  if (pid == 0) {
    execv(words[0], words);
    _exit(127);
  }
  if (pid < 0) {
    tt_fail(err, TT_IO, "error: no process can be started: %s\n  at bench program %s\n  fix: look at the limits of this system", strerror(errno), words[0]);
    return;
  }
  for (ssize_t got; (got = read(terminal, text + n, sizeof text - 1 - n)) > 0 || (got < 0 && errno == EINTR);) {
    if (got < 0) continue;
    n += (size_t)got;
    text[n] = 0;
    for (int i = 0; i < N_MARKS; i++)
      if (ms[i] < 0 && strstr(text, marks[i])) ms[i] = 1e3 * (bench_now() - start);
    if (n == sizeof text - 1) n = 0;
  }
  close(terminal);
  waitpid(pid, &status, 0);
  bool all = ms[READY] >= 0 && ms[STEP] >= 0 && ms[LATER] >= 0;
  if (!all || status != 0) tt_fail(err, TT_INVALID, "error: it %s (status %d): %.300s\n  at bench program %s\n  fix: give the example of a model that `tinytorch compile --train` wrote, in its folder", !all ? "does not tell of two steps" : "fails", WIFEXITED(status) ? WEXITSTATUS(status) : -1, n ? text : "no output", words[0]);
}

int bench_program(const cli_args *a) {
  tt_error err = {0};
  int64_t runs, threads;
  char *words[32] = {0}, count[16];
  if (a->n_words < 2 || a->n_words > 32) return cli_usage(a, "program: which file, with at most 30 words?");
  if (!cli_int(a, "runs", 20, 1, &runs) || !cli_int(a, "threads", 1, 1, &threads)) return 2;
  for (int i = 1; i < a->n_words; i++) words[i - 1] = (char *)a->words[i];
  snprintf(count, sizeof count, "%d", (int)threads);
  setenv("TT_NUM_THREADS", count, 1);
  double *ms[N_MARKS] = {malloc((size_t)runs * sizeof **ms), malloc((size_t)runs * sizeof **ms), malloc((size_t)runs * sizeof **ms)};
  if (!ms[READY] || !ms[STEP] || !ms[LATER]) tt_fail(&err, TT_NO_MEMORY, "error: no memory for the samples\n  at bench program\n  fix: free memory");
  for (int i = -1; i < runs && !err.status; i++) {           /* the first finds the file on the disk */
    double t[N_MARKS];
    start_once(words, t, &err);
    for (int k = 0; k < N_MARKS && i >= 0; k++) ms[k][i] = k == LATER ? t[LATER] - t[STEP] : t[k];
  }
  json_t *run = bench_run_new("program", (int)threads, NULL);
  int failed = 1;
  if (!err.status) {
    bench_stat s = bench_stats(ms[READY], (int)runs);
    char figure[160], bar[60];
    snprintf(figure, sizeof figure, "%.2f ms [%.2f, %.2f] over %d starts; the first step is done after %.1f ms, another takes %.1f", s.median, s.low, s.high, (int)runs, bench_stats(ms[STEP], (int)runs).median, bench_stats(ms[LATER], (int)runs).median);
    snprintf(bar, sizeof bar, "at most %.0f ms", MOST_MS);
    json_array_append_new(json_object_get(run, "rows"), json_pack("{s:s, s:i, s:i, s:b, s:s, s:s}", "workload", "ahead of time, start until ready for the first step", "threads", (int)threads, "item", 10, "met", s.median <= MOST_MS, "figure", figure, "bar", bar));
    printf("start until ready for the first step: %s (%s)\n", figure, bar);
    failed = bench_finish(a, run, &err);
  }
  for (int k = 0; k < N_MARKS; k++) free(ms[k]);
  json_decref(run);
  return err.status ? cli_fail(&err) : failed;
}
