/* team.c: the threads that run a program together.
 *
 * Two words carry everything: `job` counts the calls of rt_team_run, `phase` the barriers. A thread that waits for a word to
 * change spins for at most 50 us (a barrier then costs 0.2 us) and sleeps in a futex after that; whoever changes a word looks
 * whether anybody sleeps before it pays for a system call. A team larger than its cores never spins, because the one that is
 * waited for may need the waiter's core. */
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

typedef struct { _Alignas(CACHE_LINE) atomic_uint value; atomic_uint sleepers; } word;

typedef struct { rt_team *team; int index, cpu; pthread_t thread; } worker;

struct rt_team {
  word job, phase;
  _Alignas(CACHE_LINE) atomic_uint arrived;
  _Alignas(CACHE_LINE) rt_team_fn *fn;                   /* NULL: go home */
  void *arg;
  int n;
  bool spin;
  worker *workers;
};

static void word_wait(word *w, unsigned old, bool spin) {
  if (spin) {
    struct timespec from, now;
    clock_gettime(CLOCK_MONOTONIC, &from);
    for (int round = 1; atomic_load_explicit(&w->value, memory_order_acquire) == old; round++) {
      __builtin_ia32_pause();
      if (round % 32) continue;
      clock_gettime(CLOCK_MONOTONIC, &now);
      if ((now.tv_sec - from.tv_sec) * 1000000000L + now.tv_nsec - from.tv_nsec > SPIN_NANOSECONDS) break;
    }
  }
  if (atomic_load_explicit(&w->value, memory_order_acquire) != old) return;
  /* Sequentially consistent on both sides: either the waker sees the sleeper, or the sleeper (or the kernel) sees the new value. */
  atomic_fetch_add(&w->sleepers, 1);
  while (atomic_load(&w->value) == old) syscall(SYS_futex, &w->value, FUTEX_WAIT_PRIVATE, old, NULL, NULL, 0);
  atomic_fetch_sub(&w->sleepers, 1);
}

static void word_advance(word *w) {
  atomic_fetch_add(&w->value, 1);
  if (atomic_load(&w->sleepers)) syscall(SYS_futex, &w->value, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

void rt_team_barrier(rt_team *t, int thread) {
  (void)thread;
  if (t->n == 1) return;
  unsigned phase = atomic_load_explicit(&t->phase.value, memory_order_acquire);
  if (atomic_fetch_add_explicit(&t->arrived, 1, memory_order_acq_rel) + 1 == (unsigned)t->n) {
    atomic_store_explicit(&t->arrived, 0, memory_order_relaxed);
    word_advance(&t->phase);
  } else word_wait(&t->phase, phase, t->spin);
}

static void *work(void *arg) {
  worker *w = arg;
  rt_team *t = w->team;
  if (w->cpu >= 0) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(w->cpu, &set);
    pthread_setaffinity_np(pthread_self(), sizeof set, &set);    /* a CPU taken away meanwhile leaves the thread where it is */
  }
  for (unsigned seen = 0;; seen++) {
    word_wait(&t->job, seen, t->spin);
    if (!t->fn) return NULL;
    t->fn(t->arg, w->index, t->n);
    rt_team_barrier(t, w->index);
  }
}

void rt_team_run(rt_team *t, rt_team_fn *fn, void *arg) {
  if (t->n > 1) {
    t->fn = fn;
    t->arg = arg;
    word_advance(&t->job);
  }
  fn(arg, 0, t->n);
  rt_team_barrier(t, 0);
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
  for (int i = 0; i < t->n; i++) t->workers[i].cpu = -1;
  if (count >= t->n && here >= 0)
    for (int step = 1, i = 1; step < n_cpus && i < t->n; step++) {
      int cpu = (here + step) % n_cpus;
      if (CPU_ISSET_S((size_t)cpu, size, set) && cpu < CPU_SETSIZE) t->workers[i++].cpu = cpu;
    }
  if (set) CPU_FREE(set);
}

static void dismiss(rt_team *t, int started) {
  t->fn = NULL;
  word_advance(&t->job);
  for (int i = 1; i < started; i++) pthread_join(t->workers[i].thread, NULL);
  free(t->workers);
  free(t);
}

rt_team *rt_team_new(int n_threads, tt_error *err) {
  if (n_threads < 0 || n_threads > 4096) {
    tt_fail(err, TT_INVALID, "error: a team of %d threads\n  at rt_team_new\n  fix: use 1 to 4096, or 0 for as many as there are cores", n_threads);
    return NULL;
  }
  int n = n_threads ? n_threads : rt_team_default_size();
  rt_team *t = aligned_alloc(CACHE_LINE, (sizeof *t + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE);
  worker *workers = calloc((size_t)n, sizeof *workers);
  if (!t || !workers) {
    free(t);
    free(workers);
    tt_fail(err, TT_NO_MEMORY, "error: no memory for a team of %d threads\n  at rt_team_new\n  fix: use fewer threads", n);
    return NULL;
  }
  memset(t, 0, sizeof *t);
  t->n = n;
  t->spin = n <= cores();
  t->workers = workers;
  choose_cpus(t);
  for (int i = 1; i < n; i++) {
    workers[i].team = t;
    workers[i].index = i;
    int failure = pthread_create(&workers[i].thread, NULL, work, &workers[i]);
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
