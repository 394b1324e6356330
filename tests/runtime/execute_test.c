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
#define ARGS(...) .slots = (const uint32_t[]){__VA_ARGS__}, .n_slots = sizeof((const uint32_t[]){__VA_ARGS__}) / 4
#define WRITES(s) .writes = (const uint32_t[]){s}, .n_writes = 1
static const rt_step steps[] = {
  {.run = twice, ARGS(0, 1), .tasks = TASKS, .name = "twice", WRITES(1)},
  {.run = mirror, ARGS(1, 2), .tasks = TASKS, .name = "mirror", WRITES(2)},
  {.run = twice, ARGS(2, 1), .tasks = TASKS, .name = "twice", WRITES(1)},
  {.run = mirror, ARGS(1, 3), .tasks = TASKS, .name = "mirror", WRITES(3)},
  {.run = total, ARGS(3, 4), .tasks = 5, .serial = true, .name = "total", WRITES(4)},
  {.run = count_call, .context = &one, ARGS(5), .tasks = 1, .name = "count", WRITES(5)},
};
static const rt_program program = {steps, 6, slots, 6, 2 * 4032, 100, NULL, NULL};

static tt_tensor *input(float scale) {
  tt_tensor *x = tt_tensor_new(TT_F32, &(tt_shape){1, {N}}, NULL);
  for (int i = 0; i < N; i++) ((float *)tt_tensor_data(x))[i] = scale * (float)i;
  return x;
}

Test(execute, same_result_on_any_team, .timeout = 60) {
  for (int n = 1; n <= 4; n++) {
    rt_team *team = rt_team_new(n, NULL);
    rt_instance *x = rt_instance_new(&program, team, NULL);
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
    cr_assert_geq(rt_instance_bytes(x), program.arena_bytes);
    rt_instance_free(x);
    tt_tensor_free(calls);
    rt_team_free(team);
  }
}

Test(execute, errors_name_what_is_wrong) {
  rt_team *team = rt_team_new(1, NULL);
  rt_instance *x = rt_instance_new(&program, team, NULL);
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
static const rt_step log_steps[] = {
  {.run = twice, ARGS(0, 1), .tasks = TASKS, .name = "k_twice", .origin = "net.c:1", WRITES(1)},
  {.run = logarithm, ARGS(1, 2), .tasks = TASKS, .name = "k_log", .origin = "net.c:2", WRITES(2)},
  {.run = logarithm, ARGS(2, 3), .tasks = TASKS, .name = "k_again", .origin = "net.c:3", WRITES(3)},
  {.run = count_call, .context = &one, ARGS(5), .tasks = 1, .name = "count", WRITES(5)},
};
static const rt_program log_program = {log_steps, 4, slots, 6, 8064, 100, NULL, NULL};

Test(execute, find_not_finite) {
  rt_team *team = rt_team_new(1, NULL);
  rt_instance *x = rt_instance_new(&log_program, team, NULL);
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

/* The plan's sum is what an instance allocates and what is bound to it. */
Test(execute, plan_is_what_is_allocated) {
  tt_error err = {0};
  rt_team *team = rt_team_new(3, &err);
  rt_instance *x = rt_instance_new(&program, team, &err);
  cr_assert(x, "%s", err.message);
  for (uint32_t i = 0; i < program.n_slots; i++)
    if (program.slots[i].kind == RT_OUTPUT) cr_assert(rt_bound(x, program.slots[i].name));
  rt_memory m = rt_program_memory(&program, rt_team_size(team));
  cr_expect_eq(m.arena + m.scratch + m.outputs, rt_instance_bytes(x));
  cr_expect_eq(m.inputs, N * 4);
  cr_expect_eq(m.params, 4);
  cr_expect_eq(m.total, m.arena + m.scratch + m.outputs + m.inputs + m.params);
  rt_instance_free(x);
  rt_team_free(team);
}
