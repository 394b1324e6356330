/* team.c: the threads that run a program together.
 *
 * A thread waits for a word in memory: a counter in steps of two, whose lowest bit says that somebody sleeps on it. The waiter spins
 * for at most 50 us and then sets that bit and sleeps in a futex; the signaller exchanges the word, and pays for a system call only
 * when the bit was set. A team larger than its cores never spins, because the one that is waited for may need the waiter's core.
 *
 * One word, `job`, starts all workers; each counts itself into `finished` at the end, and the last signals `done` to the caller. A barrier
 * is the dissemination barrier (Hensgen, Finkel and Manber 1988): in round r a thread signals the one 2^r places after it and waits for
 * the one 2^r places before it. Two threads need one round, in which each writes one cache line and reads one. */
#define _GNU_SOURCE
#include "runtime.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SPIN_NANOSECONDS 50000
#define CACHE_LINE 128                                   /* pairs of 64-byte lines are fetched together */
enum { SLEEPS = 1, NEXT = 2, UNTIMED = 64 };             /* UNTIMED: spins before the clock is looked at */

typedef struct { _Alignas(CACHE_LINE) atomic_uint value; } word;

typedef struct { _Alignas(CACHE_LINE) rt_team *team; pthread_t thread; int index, cpu; unsigned barriers; word *rounds; } member;

struct rt_team {
  word job, done;
  _Alignas(CACHE_LINE) atomic_int finished;
  _Alignas(CACHE_LINE) rt_team_fn *fn;                   /* NULL: go home */
  void *arg;
  unsigned calls;
  int n, n_rounds;
  bool spin;
  member *members;
  word *words;                                           /* rounds of all members */
};

static bool reached(unsigned value, unsigned wanted) { return (int)((value & ~(unsigned)SLEEPS) - wanted) >= 0; }

static bool spins(word *w, unsigned wanted) {
  struct timespec from = {0}, now;
  for (int round = 0;; round++) {
    if (reached(atomic_load_explicit(&w->value, memory_order_acquire), wanted)) return true;
    __builtin_ia32_pause();
    if (round % UNTIMED != UNTIMED - 1) continue;
    clock_gettime(CLOCK_MONOTONIC, round < UNTIMED ? &from : &now);
    if (round >= UNTIMED && (now.tv_sec - from.tv_sec) * 1000000000L + now.tv_nsec - from.tv_nsec > SPIN_NANOSECONDS) return false;
  }
}

/* Until the word has been signalled `wanted` or more. */
static void await(word *w, unsigned wanted, bool spin) {
  if (spin && spins(w, wanted)) return;
  for (unsigned seen = atomic_load_explicit(&w->value, memory_order_acquire); !reached(seen, wanted);) {
    if (!(seen & SLEEPS) && !atomic_compare_exchange_weak_explicit(&w->value, &seen, seen | SLEEPS, memory_order_acquire, memory_order_acquire)) continue;
    syscall(SYS_futex, &w->value, FUTEX_WAIT_PRIVATE, seen | SLEEPS, NULL, NULL, 0);      /* returns at once when the word has changed */
    seen = atomic_load_explicit(&w->value, memory_order_acquire);
  }
}

static void signal_word(word *w, unsigned value) {
  if (atomic_exchange_explicit(&w->value, value, memory_order_acq_rel) & SLEEPS) syscall(SYS_futex, &w->value, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

void rt_team_barrier(rt_team *t, int thread) {
  if (t->n == 1) return;
  member *m = &t->members[thread];
  m->barriers += NEXT;
  for (int r = 0; r < t->n_rounds; r++) {
    __builtin_prefetch(&m->rounds[r].value);             /* both lines are fetched at once: the exchange waits for its own */
    signal_word(&t->members[(thread + (1 << r)) % t->n].rounds[r], m->barriers);
    await(&m->rounds[r], m->barriers, t->spin);
  }
}

static void *work(void *arg) {
  member *m = arg;
  rt_team *t = m->team;
  if (m->cpu >= 0) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(m->cpu, &set);
    pthread_setaffinity_np(pthread_self(), sizeof set, &set);    /* a CPU taken away meanwhile leaves the thread where it is */
  }
  for (unsigned call = NEXT;; call += NEXT) {
    await(&t->job, call, t->spin);
    if (!t->fn) return NULL;
    t->fn(t->arg, m->index, t->n);
    if (atomic_fetch_add_explicit(&t->finished, 1, memory_order_acq_rel) == t->n - 2) signal_word(&t->done, call);
  }
}

static void start(rt_team *t, rt_team_fn *fn, void *arg) {
  t->fn = fn;
  t->arg = arg;
  t->calls += NEXT;
  atomic_store_explicit(&t->finished, 0, memory_order_relaxed);
  signal_word(&t->job, t->calls);
}

void rt_team_run(rt_team *t, rt_team_fn *fn, void *arg) {
  if (t->n > 1) start(t, fn, arg);
  fn(arg, 0, t->n);
  if (t->n > 1) await(&t->done, t->calls, t->spin);
}

/* CPU limits of control groups: the tightest from this process's group up to the root, in whole cores, at least 1. */
static double quota_v2(const char *path) {
  char quota[32];
  double period;
  FILE *f = fopen(path, "re");
  int n = f ? fscanf(f, "%31s %lf", quota, &period) : 0;
  if (f) fclose(f);
  return n == 2 && isdigit((unsigned char)quota[0]) && period > 0 ? atof(quota) / period : 1e9;
}

static double number_in(const char *folder, const char *file) {
  char path[4200];
  double value = -1;
  snprintf(path, sizeof path, "%s/%s", folder, file);
  FILE *f = fopen(path, "re");
  if (f && fscanf(f, "%lf", &value) != 1) value = -1;
  if (f) fclose(f);
  return value;
}

static double quota_of_group(const char *mount, char *group, bool v2) {
  double least = 1e9;
  for (;;) {
    char path[4150];
    snprintf(path, sizeof path, "%s%s%s", mount, group, v2 ? "/cpu.max" : "");
    double quota = 1e9;
    if (v2) quota = quota_v2(path);
    else {
      double of = number_in(path, "cpu.cfs_quota_us"), period = number_in(path, "cpu.cfs_period_us");
      if (of > 0 && period > 0) quota = of / period;
    }
    if (quota < least) least = quota;
    char *slash = strrchr(group, '/');
    if (!slash) return least;
    *slash = 0;
  }
}

static int cgroup_cores(void) {
  double least = 1e9;
  char line[4096];
  FILE *f = fopen("/proc/self/cgroup", "re");
  while (f && fgets(line, sizeof line, f)) {             /* "4:cpu,cpuacct:/a/b" or "0::/a/b" */
    line[strcspn(line, "\n")] = 0;
    char *controllers = strchr(line, ':'), *group = controllers ? strchr(controllers + 1, ':') : NULL;
    if (!group) continue;
    *group++ = 0;
    controllers++;
    double quota = 1e9;
    char copy[4096];
    if (!*controllers) quota = quota_of_group("/sys/fs/cgroup", group, true);
    else if (!strcmp(controllers, "cpu") || !strncmp(controllers, "cpu,", 4) || strstr(controllers, ",cpu,") || (strlen(controllers) > 4 && !strcmp(controllers + strlen(controllers) - 4, ",cpu"))) {
      strcpy(copy, group);
      quota = quota_of_group("/sys/fs/cgroup/cpu", group, false);
      double other = quota_of_group("/sys/fs/cgroup/cpu,cpuacct", copy, false);
      if (other < quota) quota = other;
    }
    if (quota < least) least = quota;
  }
  if (f) fclose(f);
  return least < 1 ? 1 : least > INT_MAX ? INT_MAX : (int)least;
}

/* The CPUs this process may use; NULL (and then nothing is pinned) when the system does not say. */
static cpu_set_t *affinity(size_t *size, int *n_cpus) {
  for (int room = 1024; room <= 1 << 20; room *= 2) {
    cpu_set_t *set = CPU_ALLOC((size_t)room);
    *size = CPU_ALLOC_SIZE(room);
    if (!set) return NULL;
    if (sched_getaffinity(0, *size, set) == 0) {
      *n_cpus = room;
      return set;
    }
    CPU_FREE(set);
    if (errno != EINVAL) return NULL;
  }
  return NULL;
}

static int cores(void) {
  size_t size;
  int n_cpus, n = 0, limit = cgroup_cores();
  cpu_set_t *set = affinity(&size, &n_cpus);
  if (set) {
    n = CPU_COUNT_S(size, set);
    CPU_FREE(set);
  } else n = (int)sysconf(_SC_NPROCESSORS_ONLN);
  return n < 1 ? 1 : n < limit ? n : limit;
}

int rt_team_default_size(void) {
  const char *text = getenv("TT_NUM_THREADS");
  char *end;
  long n = text ? strtol(text, &end, 10) : 0;
  return text && *text && !*end && n >= 1 && n <= 4096 ? (int)n : cores();
}

/* Worker i gets the i-th allowed CPU after the caller's own; with more threads than CPUs all are left to the system. */
static void choose_cpus(rt_team *t) {
  size_t size;
  int n_cpus, count, here = sched_getcpu();
  const char *pin = getenv("TT_PIN");
  cpu_set_t *set = pin && !strcmp(pin, "0") ? NULL : affinity(&size, &n_cpus);
  count = set ? CPU_COUNT_S(size, set) : 0;
  for (int i = 0; i < t->n; i++) t->members[i].cpu = -1;
  if (count >= t->n && here >= 0)
    for (int step = 1, i = 1; step < n_cpus && i < t->n; step++) {
      int cpu = (here + step) % n_cpus;
      if (CPU_ISSET_S((size_t)cpu, size, set) && cpu < CPU_SETSIZE) t->members[i++].cpu = cpu;
    }
  if (set) CPU_FREE(set);
}

static void release(rt_team *t) {
  free(t->members);
  free(t->words);
  free(t);
}

static void dismiss(rt_team *t, int started) {
  start(t, NULL, NULL);
  for (int i = 1; i < started; i++) pthread_join(t->members[i].thread, NULL);
  release(t);
}

static void *lines(size_t n, size_t size) {
  void *p = aligned_alloc(CACHE_LINE, n * size);
  return p ? memset(p, 0, n * size) : NULL;
}

static rt_team *allocate(int n) {
  rt_team *t = lines(1, sizeof *t);
  if (!t) return NULL;
  t->n = n;
  while (1 << t->n_rounds < n) t->n_rounds++;
  t->members = lines((size_t)n, sizeof *t->members);
  t->words = lines((size_t)n * (size_t)t->n_rounds + 1, sizeof *t->words);
  if (!t->members || !t->words) return release(t), NULL;
  for (int i = 0; i < n; i++) t->members[i].team = t, t->members[i].index = i, t->members[i].rounds = t->words + i * t->n_rounds;
  return t;
}

rt_team *rt_team_new(int n_threads, tt_error *err) {
  if (n_threads < 0 || n_threads > 4096) {
    tt_fail(err, TT_INVALID, "error: a team of %d threads\n  at rt_team_new\n  fix: use 1 to 4096, or 0 for as many as there are cores", n_threads);
    return NULL;
  }
  int n = n_threads ? n_threads : rt_team_default_size();
  rt_team *t = allocate(n);
  if (!t) {
    tt_fail(err, TT_NO_MEMORY, "error: no memory for a team of %d threads\n  at rt_team_new\n  fix: use fewer threads", n);
    return NULL;
  }
  t->spin = n <= cores();
  choose_cpus(t);
  for (int i = 1; i < n; i++) {
    int failure = pthread_create(&t->members[i].thread, NULL, work, &t->members[i]);
    if (!failure) continue;
    dismiss(t, i);
    tt_fail(err, TT_NO_MEMORY, "error: thread %d of %d could not be started: %s\n  at rt_team_new\n  fix: use fewer threads (TT_NUM_THREADS), or raise the limit (ulimit -u)", i, n, strerror(failure));
    return NULL;
  }
  return t;
}

void rt_team_free(rt_team *t) {
  if (t) dismiss(t, t->n);
}

int rt_team_size(const rt_team *t) { return t->n; }
