/* Programs made by hand, with C functions as kernels: the walk, its barriers, binding and its errors, the search for NaN. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "runtime/runtime.h"

enum { N = 1000, TASKS = 40, PER_TASK = N / TASKS };

/* y = 2 x; y[i] = x[n-1-i] + 1 (crosses threads); total of x (serial); y = log(x). */
static void twice(char *const *args, int64_t begin, int64_t end, char *scratch, const void *context) {
  const float *x = (const float *)args[0];
  float *y = (float *)args[1];
  memset(scratch, 1, 100);
  for (int64_t i = begin * PER_TASK; i < end * PER_TASK; i++) y[i] = 2 * x[i];
}
static void mirror(char *const *args, int64_t begin, int64_t end, char *scratch, const void *context) {
  const float *x = (const float *)args[0];
  float *y = (float *)args[1];
  for (int64_t i = begin * PER_TASK; i < end * PER_TASK; i++) y[i] = x[N - 1 - i] + 1;
}
static void total(char *const *args, int64_t begin, int64_t end, char *scratch, const void *context) {
  double sum = 0;
  for (int64_t i = 0; i < N; i++) sum += (double)((const float *)args[0])[i];
  *(double *)args[1] = sum;
}
static void count_call(char *const *args, int64_t begin, int64_t end, char *scratch, const void *context) { ((float *)args[0])[0] += *(const float *)context; }
static void logarithm(char *const *args, int64_t begin, int64_t end, char *scratch, const void *context) {
  for (int64_t i = begin * PER_TASK; i < end * PER_TASK; i++) ((float *)args[1])[i] = logf(((const float *)args[0])[i]);
}

static const float one = 1;
static const rt_slot slots[] = {
  {.name = "x", .dtype = TT_F32, .shape = {1, {N}}, .kind = RT_INPUT, .bytes = N * 4},
  {.dtype = TT_F32, .shape = {1, {N}}, .kind = RT_ARENA, .bytes = N * 4, .offset = 0},
  {.dtype = TT_F32, .shape = {1, {N}}, .kind = RT_ARENA, .bytes = N * 4, .offset = 4032},
  {.name = "y", .dtype = TT_F32, .shape = {1, {N}}, .kind = RT_OUTPUT, .bytes = N * 4},
  {.name = "sum", .dtype = TT_F64, .kind = RT_OUTPUT, .bytes = 8},
  {.name = "calls", .dtype = TT_F32, .shape = {1, {1}}, .kind = RT_PARAM, .bytes = 4},
};
/* A table of steps: arguments are given in line and gathered; barriers are found as a backend finds them. */
typedef struct { rt_step step; rt_arg args[4]; } row;
#define READ(s) {.slot = s}
#define WRITE(s) {.slot = s, .written = true}
typedef struct { rt_step steps[16]; rt_arg args[64]; rt_program p; } table;
static const rt_program *make(table *t, const row *rows, uint32_t n) {
  *t = (table){0};
  t->p = (rt_program){.steps = t->steps, .slots = slots, .n_slots = 6, .args = t->args, .arena_bytes = 2 * 4032, .scratch_bytes = 100};
  for (uint32_t i = 0; i < n; i++) {
    t->steps[i] = rows[i].step;
    t->steps[i].args = t->p.n_args;
    for (uint32_t k = 0; k < rows[i].step.n_args; k++) t->args[t->p.n_args++] = rows[i].args[k];
  }
  t->p.n_steps = n;
  cr_assert(rt_place_steps(t->steps, n, &(rt_step_tables){.args = t->args, .n_args = t->p.n_args, .slots = slots}));
  return &t->p;
}

static const row steps[] = {
  {{.run = twice, .n_args = 2, .tasks = TASKS, .name = "twice"}, {READ(0), WRITE(1)}},
  {{.run = mirror, .n_args = 2, .tasks = TASKS, .name = "mirror"}, {READ(1), WRITE(2)}},
  {{.run = twice, .n_args = 2, .tasks = TASKS, .name = "twice"}, {READ(2), WRITE(1)}},
  {{.run = mirror, .n_args = 2, .tasks = TASKS, .name = "mirror"}, {READ(1), WRITE(3)}},
  {{.run = total, .n_args = 2, .tasks = 5, .serial = true, .name = "total"}, {READ(3), WRITE(4)}},
  {{.run = count_call, .context = &one, .n_args = 1, .tasks = 1, .name = "count"}, {WRITE(5)}},
};

static tt_tensor *input(float scale) {
  tt_tensor *x = tt_tensor_new(TT_F32, &(tt_shape){1, {N}}, NULL);
  for (int i = 0; i < N; i++) ((float *)tt_tensor_data(x))[i] = scale * (float)i;
  return x;
}

Test(execute, same_result_on_any_team, .timeout = 60) {
  table t;
  const rt_program *program = make(&t, steps, 6);
  for (int n = 1; n <= 4; n++) {
    rt_team *team = rt_team_new(n, NULL);
    rt_instance *x = rt_instance_new(program, team, NULL);
    tt_tensor *calls = tt_tensor_new(TT_F32, &slots[5].shape, NULL);
    cr_assert_eq(rt_bind(x, "calls", calls, NULL), TT_OK);
    for (int run = 1; run <= 100; run++) {
      tt_tensor *in = input((float)run);
      cr_assert_eq(rt_bind(x, "x", in, NULL), TT_OK);
      tt_tensor_free(in);
      cr_assert_eq(rt_run(x, NULL), TT_OK);
      double sum = 0;
      for (int64_t i = 0; i < N; i++) {                                      /* 2 (2 x + 1) + 1 */
        double want = 4 * (double)((float)run * (float)i) + 3;
        cr_assert_eq(tt_tensor_at(rt_bound(x, "y"), &i), want);
        sum += want;
      }
      cr_assert_eq(tt_tensor_at(rt_bound(x, "sum"), NULL), sum);
      cr_assert_eq(tt_tensor_at(calls, (int64_t[]){0}), run);
    }
    cr_assert_geq(rt_instance_bytes(x), program->arena_bytes);
    rt_instance_free(x);
    tt_tensor_free(calls);
    rt_team_free(team);
  }
}

Test(execute, errors_name_what_is_wrong) {
  rt_team *team = rt_team_new(1, NULL);
  table t;
  rt_instance *x = rt_instance_new(make(&t, steps, 6), team, NULL);
  tt_error err = {0};
  cr_assert_eq(rt_run(x, &err), TT_INVALID);
  cr_assert_not_null(strstr(err.message, "input x: f32[1000], parameter calls: f32[1]"), "%s", err.message);
  tt_tensor *in = input(1), *wrong = tt_tensor_new(TT_F64, &slots[0].shape, NULL);
  err = (tt_error){0};
  cr_assert_eq(rt_bind(x, "x", wrong, &err), TT_INVALID);
  cr_assert_not_null(strstr(err.message, "x wants f32[1000], it is given f64[1000]"), "%s", err.message);
  err = (tt_error){0};
  cr_assert_eq(rt_bind(x, "z", in, &err), TT_INVALID);
  cr_assert_not_null(strstr(err.message, "x, y, sum, calls"), "%s", err.message);
  err = (tt_error){0};
  cr_assert_eq(rt_bind(x, "x", in, &err), TT_OK);
  cr_assert_eq(rt_bind(x, "y", in, &err), TT_INVALID);
  cr_assert_not_null(strstr(err.message, "same memory"), "%s", err.message);
  cr_assert_null(rt_bound(x, "nothing"));
  rt_params *store = rt_params_new();
  err = (tt_error){0};
  cr_assert_eq(rt_params_bind(store, x, &err), TT_INVALID);
  cr_assert_not_null(strstr(err.message, "a parameter calls"), "%s", err.message);
  rt_params_free(store);
  tt_tensor_free(in);
  tt_tensor_free(wrong);
  rt_instance_free(x);
  rt_team_free(team);
}

Test(execute, params) {
  rt_params *store = rt_params_new();
  for (int i = 0; i < 40; i++) {
    char name[20];
    sprintf(name, "p%d", i);
    cr_assert_eq(rt_params_add(store, name, tt_tensor_new(TT_F32, &(tt_shape){0}, NULL), i % 2, false, NULL), TT_OK);
  }
  tt_error err = {0};
  cr_assert_eq(rt_params_add(store, "p7", tt_tensor_new(TT_F32, &(tt_shape){0}, NULL), true, false, &err), TT_INVALID);
  cr_assert_eq(rt_params_count(store), 40);
  cr_assert_str_eq(rt_params_find(store, "p39")->name, "p39");
  cr_assert(rt_params_at(store, 39)->trainable);
  cr_assert_null(rt_params_find(store, "p40"));
  cr_assert_null(rt_params_at(store, 40));
  rt_params_free(store);
}

/* x -> twice -> log -> count: log of 0 is -inf, log of a negative number NaN; the param that the program writes is as before. */
static const row log_steps[] = {
  {{.run = twice, .n_args = 2, .tasks = TASKS, .name = "k_twice", .origin = "net.c:1"}, {READ(0), WRITE(1)}},
  {{.run = logarithm, .n_args = 2, .tasks = TASKS, .name = "k_log", .origin = "net.c:2"}, {READ(1), WRITE(2)}},
  {{.run = logarithm, .n_args = 2, .tasks = TASKS, .name = "k_again", .origin = "net.c:3"}, {READ(2), WRITE(3)}},
  {{.run = count_call, .context = &one, .n_args = 1, .tasks = 1, .name = "count"}, {WRITE(5)}},
};

Test(execute, find_not_finite) {
  rt_team *team = rt_team_new(2, NULL);
  table t;
  rt_instance *x = rt_instance_new(make(&t, log_steps, 4), team, NULL);
  tt_tensor *calls = tt_tensor_new(TT_F32, &slots[5].shape, NULL), *in = input(1);
  float *data = tt_tensor_data(in);
  for (int i = 0; i < N; i++) data[i] = 3;
  rt_bind(x, "calls", calls, NULL);
  rt_bind(x, "x", in, NULL);
  char text[1000];
  cr_assert_not(rt_find_not_finite(x, text, sizeof text));
  data[5] = 0;                                                               /* -inf, then NaN of its logarithm */
  cr_assert(rt_find_not_finite(x, text, sizeof text));
  cr_assert_eq(strncmp(text, "kernel k_again (net.c:3) writes f32[1000] with 1 NaN", 50), 0, "%s", text);
  cr_assert_not_null(strstr(text, "before it, kernel k_log (net.c:2)"), "%s", text);
  data[5] = -1;
  cr_assert(rt_find_not_finite(x, text, sizeof text));
  cr_assert_eq(strncmp(text, "kernel k_log (net.c:2)", 22), 0, "%s", text);
  data[5] = INFINITY;
  cr_assert(rt_find_not_finite(x, text, sizeof text));
  cr_assert_eq(strncmp(text, "input x,", 8), 0, "%s", text);
  cr_assert_eq(tt_tensor_at(calls, (int64_t[]){0}), 0);
  tt_tensor_free(calls);
  tt_tensor_free(in);
  rt_instance_free(x);
  rt_team_free(team);
}

/* Where the team must meet, and who does what. Slot 1 lies in bytes 0..3999 of the arena, slot 2 in 4032..8031. */
static void barriers(const row *rows, uint32_t n, const char *want) {
  table t;
  make(&t, rows, n);
  char have[40] = "";
  for (uint32_t i = 0; i < n; i++) sprintf(have + strlen(have), "%s%u ", t.steps[i].barrier ? "|" : "", t.steps[i].thread);
  cr_expect_str_eq(have, want);
}

Test(execute, barriers_where_data_crosses_threads) {
#define STEP(n_tasks, ...) {{.run = twice, .tasks = n_tasks, .n_args = sizeof((rt_arg[]){__VA_ARGS__}) / sizeof(rt_arg)}, {__VA_ARGS__}}
#define DEALT_READ(s) {.slot = s, .task_bytes = PER_TASK * 4}
#define DEALT_WRITE(s) {.slot = s, .written = true, .task_bytes = PER_TASK * 4}
  /* any byte by any thread */
  barriers((row[]){STEP(TASKS, READ(0), WRITE(1)), STEP(TASKS, READ(1), WRITE(2))}, 2, "0 |0 ");
  /* the same tasks on the same bytes: a chain; then tasks of another size */
  barriers((row[]){STEP(TASKS, DEALT_READ(0), DEALT_WRITE(1)), STEP(TASKS, DEALT_READ(1), DEALT_WRITE(2)), STEP(TASKS, DEALT_READ(2), DEALT_WRITE(1)), STEP(2 * TASKS, DEALT_READ(1), DEALT_WRITE(3))}, 4, "0 0 0 |0 ");
  /* what is still read is not overwritten */
  barriers((row[]){STEP(TASKS, READ(1), WRITE(2)), STEP(TASKS, READ(0), WRITE(1))}, 2, "0 |0 ");
  /* independent; small single tasks follow each other on one thread */
  barriers((row[]){STEP(TASKS, READ(0), WRITE(1)), STEP(TASKS, READ(0), WRITE(2)), STEP(1, READ(0), WRITE(3)), STEP(1, READ(3), WRITE(4)), STEP(1, READ(4), READ(1), WRITE(5)), STEP(1, READ(5), WRITE(3))}, 6, "0 0 0 0 |0 0 ");
  /* few tasks go on where others stopped, unless they belong to shares before them */
  barriers((row[]){STEP(3, DEALT_READ(0), DEALT_WRITE(1)), STEP(3, DEALT_READ(0), DEALT_WRITE(2)), STEP(3, DEALT_READ(0), DEALT_WRITE(3)), STEP(3, DEALT_READ(2), DEALT_WRITE(4)), STEP(3, READ(1), WRITE(5))}, 5, "0 1 2 1 |0 ");
  /* without tasks there is nothing to wait for */
  barriers((row[]){STEP(TASKS, READ(0), WRITE(1)), STEP(0, READ(1), WRITE(2)), STEP(TASKS, READ(0), WRITE(3))}, 3, "0 0 0 ");
}

Test(execute, shares) {
  for (int n = 1; n < 7; n++)
    for (int64_t tasks = 0; tasks < 20; tasks++)
      for (uint16_t first = 0; first < 9; first += 4) {
        int64_t next = 0, begin, end;
        const rt_step s = {.tasks = tasks, .thread = first}, alone = {.tasks = tasks, .serial = true, .thread = first};
        for (int k = 0; k < n; k++, next = end) {
          rt_share(&s, (first + k) % n, n, &begin, &end);
          cr_expect(end - begin <= (tasks + n - 1) / n && (begin == next || begin == end), "%d of %d: %lld..%lld of %lld", k, n, (long long)begin, (long long)end, (long long)tasks);
          if (begin == end) end = next;
        }
        cr_expect_eq(next, tasks);
        rt_share(&alone, first % n, n, &begin, &end);
        cr_expect_eq(end, tasks);
      }
}

/* A chain and single tasks between, many times over: the walk on teams of any size gives what one thread gives. */
static void step_in_place(char *const *args, int64_t begin, int64_t end, char *scratch, const void *context) {
  float *x = (float *)args[0];
  for (int64_t i = begin * PER_TASK; i < end * PER_TASK; i++) x[i] = 3 * x[i] - (float)i;
}
static void ends(char *const *args, int64_t begin, int64_t end, char *scratch, const void *context) {
  float *x = (float *)args[0];
  x[0] = x[N - 1] / 1024, x[N / 2] = x[1] / 512;
}
Test(execute, long_walks, .timeout = 60) {
  static row rows[15];
  for (int i = 0; i < 15; i++)
    rows[i] = i % 4 == 3 ? (row){{.run = ends, .n_args = 1, .tasks = 1}, {WRITE(3)}} : (row){{.run = step_in_place, .n_args = 1, .tasks = TASKS}, {DEALT_WRITE(3)}};
  float want[N];
  for (int n = 1; n <= 5; n++) {
    table t;
    rt_team *team = rt_team_new(n, NULL);
    rt_instance *x = rt_instance_new(make(&t, rows, 15), team, NULL);
    tt_tensor *calls = tt_tensor_new(TT_F32, &slots[5].shape, NULL), *in = input(1);
    rt_bind(x, "x", in, NULL);
    rt_bind(x, "calls", calls, NULL);
    float *y = tt_tensor_data(rt_bound(x, "y"));
    for (int run = 0; run < 100; run++) cr_assert_eq(rt_run(x, NULL), TT_OK);
    if (n == 1) memcpy(want, y, sizeof want);
    cr_expect_eq(memcmp(want, y, sizeof want), 0, "%d threads", n);
    tt_tensor_free(calls);
    tt_tensor_free(in);
    rt_instance_free(x);
    rt_team_free(team);
  }
}

/* The hook sees every step in order, and ends the run. */
typedef struct { uint32_t next, last; } watch;
static bool follow(void *user, rt_instance *x, uint32_t step, double seconds) {
  watch *w = user;
  cr_assert(step == w->next++ && seconds >= 0);
  return step < w->last;
}
Test(execute, hooks) {
  rt_team *team = rt_team_new(2, NULL);
  table t;
  rt_instance *x = rt_instance_new(make(&t, steps, 6), team, NULL);
  tt_tensor *calls = tt_tensor_new(TT_F32, &slots[5].shape, NULL), *in = input(1);
  rt_bind(x, "x", in, NULL);
  cr_assert_eq(rt_bind_slot(x, 5, calls, NULL), TT_OK);
  cr_assert_eq(rt_bind_slot(x, 5, calls, NULL), TT_OK);
  cr_assert_eq(rt_bind_slot(x, 1, calls, NULL), TT_INVALID);
  cr_assert_eq(rt_run_hooked(x, follow, &(watch){0, 6}, NULL), TT_OK);
  cr_assert_eq(tt_tensor_at(calls, (int64_t[]){0}), 1);
  watch w = {0, 2};
  tt_error err = {0};
  cr_assert_eq(rt_run_hooked(x, follow, &w, &err), TT_INTERRUPTED);
  cr_assert_eq(w.next, 3);
  cr_assert_eq(tt_tensor_at(calls, (int64_t[]){0}), 1);
  double seconds[6] = {0};
  cr_assert_eq(rt_run_timed(x, seconds, NULL), TT_OK);
  for (int i = 0; i < 6; i++) cr_assert_gt(seconds[i], 0);
  tt_tensor_free(calls);
  tt_tensor_free(in);
  rt_instance_free(x);
  rt_team_free(team);
}

/* The plan's sum is what an instance allocates and what is bound to it. */
Test(execute, plan_is_what_is_allocated) {
  tt_error err = {0};
  table t;
  const rt_program *p = make(&t, steps, 6);
  rt_team *team = rt_team_new(3, &err);
  rt_instance *x = rt_instance_new(p, team, &err);
  cr_assert(x, "%s", err.message);
  for (uint32_t i = 0; i < p->n_slots; i++)
    if (p->slots[i].kind == RT_OUTPUT) cr_assert(rt_bound(x, p->slots[i].name));
  rt_memory m = rt_program_memory(p, rt_team_size(team));
  cr_expect_eq(m.arena + m.scratch + m.outputs, rt_instance_bytes(x));
  cr_expect_eq(m.inputs, N * 4);
  cr_expect_eq(m.params, 4);
  cr_expect_eq(m.total, m.arena + m.scratch + m.outputs + m.inputs + m.params);
  rt_instance_free(x);
  rt_team_free(team);
}
