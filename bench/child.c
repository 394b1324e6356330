/* child.c: one workload in a fresh process: `bench start WORKLOAD` compiles it, runs it, and writes when each was done and how much memory the
 * process took, as a line of JSON. `bench compile` and `bench memory` start it and read that line. Times are of the monotonic clock, which
 * all processes share, so that the parent can count from before the process was there. */
#define _GNU_SOURCE
#include "bench.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* A line of /proc/self/status, in MiB. */
static double status_mib(const char *field) {
  char line[200];
  double kib = 0;
  FILE *f = fopen("/proc/self/status", "re");
  while (f && fgets(line, sizeof line, f))
    if (!strncmp(line, field, strlen(field))) kib = strtod(line + strlen(field) + 1, NULL);
  if (f) fclose(f);
  return kib / 1024;
}

static void reset_peak(void) {
  int f = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
  if (f < 0) return;
  if (write(f, "5", 1) != 1) { }                  /* then VmHWM is of the whole process: more, never less */
  close(f);
}

int bench_start(const cli_args *a) {
  tt_error err = {0};
  bench_workload w;
  int64_t threads, steps;
  if (a->n_words != 2) return cli_usage(a, "start: one workload");
  if (!cli_int(a, "threads", 1, 1, &threads) || !cli_int(a, "steps", 20, 1, &steps)) return 2;
  if (!bench_parse(a->words[1], &w, &err)) return cli_fail(&err);
  bench_target target;
  if (!bench_target_of(a, &target)) return 2;
  bench_cores cores;
  rt_team *team = bench_pinned_team((int)threads, &cores, &err);
  if (!team) return cli_fail(&err);
  double before = status_mib("VmRSS");
  reset_peak();
  bench_side s;
  double *ms = malloc((size_t)steps * sizeof *ms);
  bench_keep_to(&cores, (int)threads);           /* a compilation's threads inherit them */
  bool ok = ms && bench_ours(&s, &w, team, &target, &err);
  if (ok && s.error[0]) ok = tt_fail(&err, TT_UNSUPPORTED, "error: %s: %s\n  at bench start\n  fix: use another workload", w.name, s.error) == TT_OK;
  double ready = bench_now();
  bench_keep_to(&cores, 1);
  ok = ok && s.run(&s, 1, ms);
  double first = bench_now();
  if (ok && steps > 1) ok = s.run(&s, (int)steps - 1, ms + 1);
  if (ok) {
    bench_facts facts = bench_ours_facts(&s);
    printf("{\"workload\": \"%s\", \"threads\": %d, \"ready\": %.6f, \"first\": %.6f, \"kernels\": %u, \"trace_and_compile_ms\": %.3f, \"rss_before_mib\": %.3f, \"rss_peak_mib\": %.3f, \"plan_mib\": %.3f}\n", w.name, (int)threads,
           ready, first, facts.kernels, facts.compile_ms, before, status_mib("VmHWM"), facts.plan / (1 << 20));
  }
  if (s.self) bench_side_close(&s);
  free(ms);
  rt_team_free(team);
  return ok ? 0 : cli_fail(&err);
}

/* All that fd gives until its end. */
static char *read_all(int fd) {
  size_t n = 0, cap = 0;
  char *text = NULL;
  for (;;) {
    if (cap - n < 4096) {
      char *more = realloc(text, (cap += 65536) + 1);
      if (!more) break;
      text = more;
    }
    ssize_t k = read(fd, text + n, cap - n);
    if (k <= 0) break;
    n += (size_t)k;
  }
  if (text) text[n] = 0;
  return text;
}

json_t *bench_child(const cli_args *a, const char *workload, int threads, int steps, int64_t budget, const char *cache, double *started, tt_error *err) {
  char count[16], n_steps[16], bytes[32], self[4096];
  int out[2];
  const char *words[16] = {self, "bench", "start", workload, "--threads", count, "--steps", n_steps};
  int n = 8, status = 0;
  ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
  snprintf(count, sizeof count, "%d", threads);
  snprintf(n_steps, sizeof n_steps, "%d", steps);
  static const char *const passed_on[] = {"--cpu", "--skip", "--tuned"};
  for (int i = 0; i < 3; i++)
    if (cli_has(a, passed_on[i] + 2)) words[n++] = passed_on[i], words[n++] = cli_get(a, passed_on[i] + 2, "");
  snprintf(bytes, sizeof bytes, "%lld", (long long)budget);
  if (budget > 0) words[n++] = "--memory-budget", words[n++] = bytes;
  if (length < 0 || pipe2(out, O_CLOEXEC) != 0) {
    tt_fail(err, TT_IO, "error: no process can be started\n  at bench, %s\n  fix: look at the limits of this system", workload);
    return NULL;
  }
  self[length] = 0;
  *started = bench_now();
  pid_t pid = fork();
  if (pid == 0) {
    setenv("TT_CACHE_DIR", cache, 1);
    unsetenv("TT_CACHE");
    if (dup2(out[1], 1) >= 0) execv(self, (char *const *)words);
    _exit(127);
  }
  close(out[1]);
  char *text = pid > 0 ? read_all(out[0]) : NULL;
  close(out[0]);
  if (pid > 0) waitpid(pid, &status, 0);
  json_t *j = text && status == 0 ? json_loads(text, 0, NULL) : NULL;
  if (!j) tt_fail(err, TT_INTERNAL, "error: the process for %s ended with status %d%s%.200s\n  at bench start %s\n  fix: run `tinytorch bench start %s` by itself", workload, WIFEXITED(status) ? WEXITSTATUS(status) : -1,
                  text && *text ? " after " : "", text ? text : "", workload, workload);
  free(text);
  return j;
}
