/* The team under load: every thread runs every call, and a barrier keeps rounds apart. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "runtime/runtime.h"

enum { MOST = 8, ROUNDS = 400 };

typedef struct { rt_team *team; int64_t cells[MOST][16]; int64_t wrong; int rounds; } job;

/* Each round every thread writes its cell, and after a barrier reads all: a barrier that lets one through early shows. */
static void rounds(void *arg, int thread, int n) {
  job *j = arg;
  for (int r = 1; r <= j->rounds; r++) {
    j->cells[thread][0] += thread + 1;
    rt_team_barrier(j->team, thread);
    for (int i = 0; i < n; i++)
      if (j->cells[i][0] != (int64_t)r * (i + 1)) __atomic_fetch_add(&j->wrong, 1, __ATOMIC_RELAXED);
    rt_team_barrier(j->team, thread);
  }
}

Test(team, barriers_separate_rounds, .timeout = 60) {
  for (int n = 1; n <= MOST; n = n < 4 ? n + 1 : 2 * n) {
    job j = {.team = rt_team_new(n, NULL), .rounds = n > 2 ? ROUNDS / 8 : ROUNDS};
    cr_assert_eq(rt_team_size(j.team), n);
    rt_team_run(j.team, rounds, &j);
    cr_assert_eq(j.wrong, 0);
    for (int i = 0; i < n; i++) cr_assert_eq(j.cells[i][0], (int64_t)j.rounds * (i + 1));
    rt_team_free(j.team);
  }
}

static void add(void *arg, int thread, int n) { ((job *)arg)->cells[thread][0] += n; }

Test(team, many_short_calls_and_sleeps, .timeout = 60) {
  for (int n = 1; n <= 4; n++) {
    job j = {.team = rt_team_new(n, NULL)};
    for (int i = 0; i < 2000; i++) {
      rt_team_run(j.team, add, &j);
      if (i % 200 == 0) nanosleep(&(struct timespec){0, 300000}, NULL);      /* longer than the spin: workers sleep */
    }
    for (int i = 0; i < n; i++) cr_assert_eq(j.cells[i][0], 2000 * n);
    rt_team_free(j.team);
  }
}

static void *own_team(void *arg) {
  job *j = arg;
  j->team = rt_team_new(2, NULL);
  j->rounds = ROUNDS / 8;
  for (int i = 0; i < 20; i++) {
    for (int k = 0; k < MOST; k++) j->cells[k][0] = 0;
    rt_team_run(j->team, rounds, j);
  }
  rt_team_free(j->team);
  return NULL;
}

Test(team, several_at_once, .timeout = 60) {
  job jobs[3] = {0};
  pthread_t threads[3];
  for (int i = 0; i < 3; i++) pthread_create(&threads[i], NULL, own_team, &jobs[i]);
  for (int i = 0; i < 3; i++) {
    pthread_join(threads[i], NULL);
    cr_assert_eq(jobs[i].wrong, 0);
  }
}

Test(team, sizes) {
  setenv("TT_NUM_THREADS", "3", 1);
  rt_team *t = rt_team_new(0, NULL);
  cr_assert_eq(rt_team_size(t), 3);
  rt_team_free(t);
  setenv("TT_NUM_THREADS", "many", 1);
  cr_assert_geq(rt_team_default_size(), 1);
  tt_error err = {0};
  cr_assert_null(rt_team_new(-1, &err));
  cr_assert_eq(err.status, TT_INVALID);
  setenv("TT_PIN", "0", 1);
  t = rt_team_new(2, NULL);
  cr_assert_not_null(t);
  rt_team_free(t);
}
