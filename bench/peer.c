/* peer.c: another framework in a process of its own, by the protocol of ../shared/peers/README.md: it is started on a workload, builds it, warms
 * up and writes a line of JSON; then for each line N on its input it does N runs and answers with a list of N times in ms. The end of its input
 * ends it. What it says on its standard error goes to a file, whose last line is the reason when it dies. */
#define _GNU_SOURCE
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct {
  pid_t pid;
  int to, from, said;              /* its input, its output, what it says besides */
  char *line; size_t n_line, cap_line;       /* read, from its output, not used yet */
  json_t *greeting;
} peer;

static bool failed(bench_side *s, const char *what) {
  snprintf(s->error, sizeof s->error, "%s", what);
  return false;
}

/* The last line that is not empty of what it said; the status when there is none. */
static bool died(bench_side *s) {
  peer *p = s->self;
  char said[2001];
  int status = 0;
  off_t end = lseek(p->said, 0, SEEK_END), from = end > 2000 ? end - 2000 : 0;
  ssize_t n = pread(p->said, said, 2000, from);
  said[n > 0 ? n : 0] = 0;
  while (n > 0 && (said[n - 1] == '\n' || said[n - 1] == ' ')) said[--n] = 0;
  const char *last = strrchr(said, '\n');
  kill(p->pid, SIGKILL);           /* it has closed its output: it is of no use any more */
  waitpid(p->pid, &status, 0);
  p->pid = 0;
  if (said[0]) snprintf(s->error, sizeof s->error, "it died: %.300s", last ? last + 1 : said);
  else if (WIFSIGNALED(status) && WTERMSIG(status) != SIGKILL) snprintf(s->error, sizeof s->error, "it died of signal %d", WTERMSIG(status));
  else snprintf(s->error, sizeof s->error, "it died with status %d and said nothing", WIFEXITED(status) ? WEXITSTATUS(status) : -1);
  return false;
}

/* The next line of its output, which p->line then begins with, NUL for the newline. */
static bool read_line(bench_side *s, double seconds) {
  peer *p = s->self;
  double end = bench_now() + seconds;
  for (char *newline; !(newline = p->n_line ? memchr(p->line, '\n', p->n_line) : NULL);) {
    if (p->cap_line - p->n_line < 4096) {
      char *more = realloc(p->line, p->cap_line + 65536);
      if (!more) return failed(s, "no memory for what it writes");
      p->line = more, p->cap_line += 65536;
    }
    int left = (int)(1e3 * (end - bench_now()));
    int ready = left > 0 ? poll(&(struct pollfd){p->from, POLLIN, 0}, 1, left) : 0;
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) {
      snprintf(s->error, sizeof s->error, "no answer in %.0f s", seconds);
      return false;
    }
    ssize_t n = read(p->from, p->line + p->n_line, p->cap_line - p->n_line);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return died(s);
    p->n_line += (size_t)n;
  }
  *(char *)memchr(p->line, '\n', p->n_line) = 0;
  return true;
}

static json_t *take_json(bench_side *s, double seconds) {
  peer *p = s->self;
  if (!read_line(s, seconds)) return NULL;
  json_error_t why;
  size_t used = strlen(p->line) + 1;
  json_t *j = json_loadb(p->line, used - 1, 0, &why);
  if (!j) snprintf(s->error, sizeof s->error, "what it writes is no JSON (%.100s): %.150s", why.text, p->line);
  memmove(p->line, p->line + used, p->n_line - used);
  p->n_line -= used;
  return j;
}

static bool run(bench_side *s, int n, double *ms) {
  peer *p = s->self;
  char text[16];
  int length = snprintf(text, sizeof text, "%d\n", n);
  if (write(p->to, text, (size_t)length) != length) return died(s);
  json_t *answer = take_json(s, 60 + 20e-3 * n * s->once);
  bool ok = json_is_array(answer) && json_array_size(answer) == (size_t)n;
  for (int i = 0; ok && i < n; i++) {
    json_t *v = json_array_get(answer, (size_t)i);
    ok = json_is_number(v) && (ms[i] = json_number_value(v)) >= 0;
  }
  if (answer && !ok) snprintf(s->error, sizeof s->error, "asked for %d runs, it answers with no list of so many times", n);
  json_decref(answer);
  return ok;
}

static void close_peer(bench_side *s) {
  peer *p = s->self;
  if (p->to >= 0) close(p->to);
  if (p->from >= 0) close(p->from);
  for (int i = 0; p->pid > 0 && i < 200; i++) {              /* two seconds to end by itself */
    pid_t gone = waitpid(p->pid, NULL, WNOHANG);
    if (gone == p->pid || (gone < 0 && errno == ECHILD)) p->pid = 0;
    else usleep(10000);
  }
  if (p->pid > 0) {
    kill(p->pid, SIGKILL);
    waitpid(p->pid, NULL, 0);
  }
  if (p->said >= 0) close(p->said);
  json_decref(p->greeting);
  free(p->line);
  free(p);
}

bool bench_peer_start(bench_side *s, const char *folder, const char *framework, const char *workload, int threads, const bench_cores *cores) {
  char program[4200], count[16];
  int in[2] = {-1, -1}, out[2] = {-1, -1};
  peer *p = calloc(1, sizeof *p);
  *s = (bench_side){0};
  snprintf(s->framework, sizeof s->framework, "%s", framework);
  snprintf(program, sizeof program, "%s/peer", folder);
  snprintf(count, sizeof count, "%d", threads);
  if (!p) return failed(s, "no memory");
  *p = (peer){.to = -1, .from = -1, .said = -1};
  s->run = run, s->close = close_peer, s->self = p;
  if (access(program, X_OK) != 0) {
    snprintf(s->error, sizeof s->error, "there is no program %.300s", program);
    return false;
  }
  if ((p->said = memfd_create("said", MFD_CLOEXEC)) < 0 || pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0) {
    for (int i = 0; i < 2; i++) {
      if (in[i] >= 0) close(in[i]);
      if (out[i] >= 0) close(out[i]);
    }
    return failed(s, strerror(errno));
  }
  p->to = in[1], p->from = out[0];
  p->pid = fork();
  if (p->pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    bench_unpin(cores);
    signal(SIGPIPE, SIG_DFL);
    if (dup2(in[0], 0) >= 0 && dup2(out[1], 1) >= 0 && dup2(p->said, 2) >= 0) execl(program, program, framework, workload, "--serve", "--threads", count, (char *)NULL);
    _exit(127);
  }
  close(in[0]);
  close(out[1]);
  return p->pid > 0 || failed(s, strerror(errno));
}

bool bench_peer_ready(bench_side *s, double seconds) {
  peer *p = s->self;
  if (!(p->greeting = take_json(s, seconds))) return false;
  const char *error = json_string_value(json_object_get(p->greeting, "error")), *version = json_string_value(json_object_get(p->greeting, "version"));
  if (error) {
    snprintf(s->error, sizeof s->error, "it cannot: %.350s", error);
    return false;
  }
  if (version) snprintf(s->version, sizeof s->version, "%s", version);
  s->once = bench_peer_figure(s, "once_ms"), s->flops = bench_peer_figure(s, "flops"), s->bytes = bench_peer_figure(s, "bytes");
  return s->once > 0 || failed(s, "its first line has no once_ms");
}

double bench_peers_patience(const cli_args *a) {
  double seconds;
  return cli_double(a, "patience", 300, &seconds) ? seconds : 300;
}

double bench_peer_figure(const bench_side *s, const char *key) {
  const peer *p = s->self;
  return p && p->greeting ? json_number_value(json_object_get(p->greeting, key)) : 0;
}

const char *bench_peers_folder(const cli_args *a) {
  const char *given = cli_get(a, "peers", NULL), *set = getenv("TINYTORCH_PEERS_DIR");
  if (!given || given[0]) return given;
  return set && set[0] ? set : "../shared/peers";
}

bool bench_framework_wanted(const cli_args *a, const char *framework) {
  const char *list = cli_get(a, "frameworks", NULL);
  size_t n = strlen(framework);
  for (const char *at = list; at && (at = strstr(at, framework)); at += n)
    if ((at == list || at[-1] == ',') && (at[n] == 0 || at[n] == ',')) return true;
  return !list;
}

int bench_peers_start(const cli_args *a, const bench_workload *w, int threads, const bench_cores *cores, bench_side *sides, int most) {
  char framework[40];
  int n = 0;
  for (const char *at = w->family->peers; at && *at && n < most; at += strspn(at, " ")) {
    size_t length = strcspn(at, " ");
    snprintf(framework, sizeof framework, "%.*s", (int)length, at);
    at += length;
    if (bench_framework_wanted(a, framework)) bench_peer_start(&sides[n++], bench_peers_folder(a), framework, w->name, threads, cores);
  }
  return n;
}
