/* tt_fit on a small linear model with momentum, its program made by hand: it learns, evaluates every sample once, and a run that was
 * stopped anywhere and resumed ends with the same bits; what damages a run is named. */
#define _GNU_SOURCE
#include "files.h"

#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <sys/wait.h>

#include "runtime/runtime.h"

enum { B = 8, D = 4, C = 3, N = 50 };

/* logits [B,C] = x [B,D] w [D,C] */
static void k_logits(char *const *args, int64_t begin, int64_t end, char *scratch, const void *context) {
  const float *x = (const float *)args[0], *w = (const float *)args[1];
  float *z = (float *)args[2];
  for (int64_t b = begin; b < end; b++)
    for (int c = 0; c < C; c++) {
      z[b * C + c] = 0;
      for (int d = 0; d < D; d++) z[b * C + c] += x[b * D + d] * w[d * C + c];
    }
}
/* loss, number of right answers, and the gradient of the logits */
static void k_loss(char *const *args, int64_t begin, int64_t end, char *scratch, const void *context) {
  const float *z = (const float *)args[0];
  const int32_t *y = (const int32_t *)args[1];
  float *g = (float *)args[2], *loss = (float *)args[3];
  int64_t *correct = (int64_t *)args[4];
  *loss = 0, *correct = 0;
  for (int b = 0; b < B; b++) {
    float sum = 0, most = z[b * C];
    int best = 0;
    for (int c = 1; c < C; c++)
      if (z[b * C + c] > most) most = z[b * C + c], best = c;
    for (int c = 0; c < C; c++) sum += expf(z[b * C + c] - most);
    for (int c = 0; c < C; c++) g[b * C + c] = (expf(z[b * C + c] - most) / sum - (c == y[b])) / B;
    *loss += (most + logf(sum) - z[b * C + y[b]]) / B;
    *correct += best == y[b];
  }
}
/* m = 0.9 m + x^T g + noise of (seed, step); w = w - lr m; step may raise a number that is not finite */
static void k_update(char *const *args, int64_t begin, int64_t end, char *scratch, const void *context) {
  const float *x = (const float *)args[0], *g = (const float *)args[1];
  float *w = (float *)args[2], *m = (float *)args[3];
  double lr = *(double *)args[4];
  int64_t step = *(int64_t *)args[5];
  uint64_t seed = *(uint64_t *)args[6];
  for (int64_t i = begin; i < end; i++) {
    float sum = ((float)(tt_random_word(seed, (uint64_t)step, 0, (uint64_t)i) >> 8) * 0x1p-24f - 0.5f) * 1e-3f;
    for (int b = 0; b < B; b++) sum += x[b * D + i / C] * g[b * C + i % C];
    m[i] = 0.9f * m[i] + sum;
    w[i] -= (float)lr * m[i];
  }
}
static void k_break(char *const *args, int64_t begin, int64_t end, char *scratch, const void *context) {
  if (*(int64_t *)args[0] == *(const int64_t *)context) ((float *)args[1])[2] = NAN;
}

enum { X, Y, W, M, LR, STEP, SEED, Z, G, LOSS, CORRECT, LOGITS, N_SLOTS };
#define SLOT(N, T, K, ...) {.name = N, .dtype = TT_##T, .shape = __VA_ARGS__, .kind = RT_##K}
static const rt_slot train_slots[N_SLOTS] = {
  [X] = SLOT("x", F32, INPUT, {2, {B, D}}), [Y] = SLOT("y", I32, INPUT, {1, {B}}), [W] = SLOT("w", F32, PARAM, {2, {D, C}}), [M] = SLOT("w.momentum", F32, PARAM, {2, {D, C}}),
  [LR] = SLOT("lr", F64, INPUT, {0}), [STEP] = SLOT("step", I64, INPUT, {0}), [SEED] = SLOT("seed", U64, INPUT, {0}), [Z] = SLOT(NULL, F32, ARENA, {2, {B, C}}), [G] = SLOT(NULL, F32, ARENA, {2, {B, C}}),
  [LOSS] = SLOT("loss", F32, OUTPUT, {0}), [CORRECT] = SLOT("correct", I64, OUTPUT, {0}), [LOGITS] = SLOT("logits", F32, OUTPUT, {2, {B, C}}),
};
static const int64_t break_at = 45;
#define R(s) {.slot = s}
#define W_(s) {.slot = s, .written = true}
static const rt_arg args[] = {R(X), R(W), W_(Z),  R(STEP), W_(Z),  R(Z), R(Y), W_(G), W_(LOSS), W_(CORRECT),  R(X), R(G), W_(W), W_(M), R(LR), R(STEP), R(SEED),  R(X), R(W), W_(LOGITS)};
#define LOGITS_STEP(first) {.run = k_logits, .args = first, .n_args = 3, .tasks = B, .name = "logits", .origin = "net.c:3 fc"}
#define BREAK_STEP {.run = k_break, .context = &break_at, .args = 3, .n_args = 2, .tasks = 1, .name = "breaks", .origin = "net.c:4"}
#define LOSS_STEP {.run = k_loss, .args = 5, .n_args = 5, .tasks = 1, .serial = true, .name = "loss", .origin = "net.c:5"}
#define UPDATE_STEP {.run = k_update, .args = 10, .n_args = 7, .tasks = D * C, .name = "update", .origin = "net.c:6"}
static rt_step train_steps[] = {LOGITS_STEP(0), LOSS_STEP, UPDATE_STEP}, bad_steps[] = {LOGITS_STEP(0), BREAK_STEP, LOSS_STEP, UPDATE_STEP}, eval_steps[] = {LOGITS_STEP(17)};

/* Slots with bytes and places. */
static rt_slot slots[N_SLOTS], eval_slots[N_SLOTS];
static rt_program train_program(void) {
  memcpy(slots, train_slots, sizeof slots);
  for (int i = 0; i < N_SLOTS; i++) slots[i].bytes = (size_t)tt_shape_count(&slots[i].shape) * tt_dtype_size(slots[i].dtype);
  slots[G].offset = 128;
  rt_place_steps(train_steps, 3, &(rt_step_tables){.args = args, .slots = slots});
  rt_place_steps(bad_steps, 4, &(rt_step_tables){.args = args, .slots = slots});
  return (rt_program){.steps = train_steps, .n_steps = 3, .slots = slots, .n_slots = LOGITS, .args = args, .n_args = 17, .arena_bytes = 256};
}
static rt_program eval_program(void) {
  train_program();
  memcpy(eval_slots, slots, sizeof slots);
  for (int i = 0; i < N_SLOTS; i++)
    if (i != X && i != W && i != LOGITS) eval_slots[i] = (rt_slot){.kind = RT_ARENA, .bytes = 8};
  return (rt_program){.steps = eval_steps, .n_steps = 1, .slots = eval_slots, .n_slots = N_SLOTS, .args = args, .n_args = sizeof args / sizeof *args, .arena_bytes = 256};
}

static uint8_t pixels[N * D], labels[N];
static tt_dataset dataset(void) {
  for (int i = 0; i < N; i++) {
    labels[i] = (uint8_t)(i % C);
    for (int d = 0; d < D; d++) pixels[i * D + d] = (uint8_t)(tt_random_word(1, 0, 0, (uint64_t)(i * D + d)) % 100 + (d == labels[i] ? 120 : 0));
  }
  return (tt_dataset){"own", N, 1, 2, 2, C, pixels, labels, {0.3f}, {0.3f}};
}

static rt_params *params(void) {
  rt_params *p = rt_params_new();
  rt_params_add(p, "w", tt_tensor_new(TT_F32, &(tt_shape){2, {D, C}}, NULL), true, false, NULL);
  rt_params_add(p, "w.momentum", tt_tensor_new(TT_F32, &(tt_shape){2, {D, C}}, NULL), false, true, NULL);
  return p;
}
static void copy_bits(rt_params *p, float to[2][D * C]) {
  for (int i = 0; i < 2; i++) memcpy(to[i], tt_tensor_data(rt_params_at(p, i)->tensor), sizeof to[i]);
}

static tt_fit_options options(const rt_program *step, rt_params *p, rt_team *team, const tt_dataset *d) {
  return (tt_fit_options){.step = step, .params = p, .team = team, .train = d, .loader = {.batch = B, .shuffle = true, .seed = 3, .flatten = true},
                          .schedule = {.name = "cosine", .lr = 0.5, .warmup = 5, .total = 100, .floor = 0.01}, .epochs = 12, .seed = 77, .config = "linear 4x3"};
}

Test(train, learns_and_evaluates_every_sample, .timeout = 60) {
  tt_dataset d = dataset();
  rt_program step = train_program(), eval = eval_program();
  float bits[3][2][D * C];
  for (int n = 1; n <= 3; n++) {
    rt_team *team = rt_team_new(n, NULL);
    rt_params *p = params();
    tt_fit_options o = options(&step, p, team, &d);
    o.eval = &eval, o.test = &d;
    tt_error err = {0};
    tt_fit_result r;
    cr_assert_eq(tt_fit(&o, &r, &err), TT_OK, "%s", err.message);
    cr_assert(r.epochs == 12 && r.steps == 84);
    cr_assert(r.loss < 0.5 && r.train_accuracy > 0.9 && r.test_accuracy > 0.9, "loss %g accuracy %g %g", r.loss, r.train_accuracy, r.test_accuracy);
    copy_bits(p, bits[n - 1]);
    cr_assert_eq(memcmp(bits[0], bits[n - 1], sizeof bits[0]), 0, "%d threads", n);
    /* The evaluation again, by hand. */
    const float *w = tt_tensor_data(rt_params_find(p, "w")->tensor);
    double loss = 0;
    int right = 0;
    for (int i = 0; i < N; i++) {
      double z[C] = {0}, sum = 0;
      for (int c = 0; c < C; c++)
        for (int k = 0; k < D; k++) z[c] += (pixels[i * D + k] / 255.0 - 0.3) / 0.3 * (double)w[k * C + c];
      for (int c = 0; c < C; c++) sum += exp(z[c]);
      loss += (log(sum) - z[labels[i]]) / N;
      right += z[labels[i]] >= z[0] && z[labels[i]] >= z[1] && z[labels[i]] >= z[2];
    }
    cr_assert_float_eq(r.test_loss, loss, 1e-5);
    cr_assert_float_eq(r.test_accuracy, right / (double)N, 1e-12);
    tt_eval_result e;
    cr_assert_eq(tt_evaluate(&eval, p, team, &d, B, true, NULL, &e, NULL), TT_OK);
    cr_assert(e.samples == N && e.correct == right && e.loss == r.test_loss);
    rt_params_free(p);
    rt_team_free(team);
  }
}

typedef struct { volatile int stop; int lines, transients, stop_at; int64_t calls; char last[400]; } watcher;
static void watch(void *user, const char *line, bool transient) {
  watcher *w = user;
  if (transient) w->transients++;
  else w->lines++, snprintf(w->last, sizeof w->last, "%s", line);
  if (!transient && w->lines == w->stop_at) w->stop = 1;
}

/* Stopped by max_steps at every step number of interest, and by the stop flag, then resumed: the bits of a run without a stop. */
Test(train, resumes_to_the_same_bits, .timeout = 60) {
  tt_dataset d = dataset();
  rt_program step = train_program();
  rt_team *team = rt_team_new(2, NULL);
  float want[2][D * C], got[2][D * C];
  rt_params *p = params();
  tt_fit_options o = options(&step, p, team, &d);
  tt_fit_result whole, r;
  cr_assert_eq(tt_fit(&o, &whole, NULL), TT_OK);
  copy_bits(p, want);
  rt_params_free(p);
  const int64_t stops[] = {1, 6, 7, 8, 20, 83, 84};
  for (int i = 0; i < 7; i++) {
    folder f = folder_new();
    char log[300];
    snprintf(log, sizeof log, "%s/log", f.dir);
    p = params();
    o = options(&step, p, team, &d);
    o.checkpoint = in(&f, "deep/down");
    o.checkpoint_every = i % 3 * 2;
    o.max_steps = stops[i];
    o.log = log;
    tt_error err = {0};
    cr_assert_eq(tt_fit(&o, &r, &err), TT_OK, "%s", err.message);
    cr_assert_eq(r.steps, stops[i]);
    rt_params_free(p);
    o.params = p = params();                                                 /* nothing but the checkpoint is left */
    o.resume = true;
    o.max_steps = 0;
    cr_assert_eq(tt_fit(&o, &r, &err), TT_OK, "%s", err.message);
    copy_bits(p, got);
    cr_assert_eq(memcmp(want, got, sizeof want), 0, "stopped after %lld", (long long)stops[i]);
    if (stops[i] < 84) cr_assert(r.loss == whole.loss && r.train_accuracy == whole.train_accuracy);
    rt_params_free(p);
    /* The log has each step once, in order. */
    static char text[40000];
    text[get(log, text, sizeof text - 1)] = 0;
    int64_t next = 0;
    for (char *line = text; *line; line = strchr(line, '\n') + 1) {
      json_t *j = json_loadb(line, (size_t)(strchr(line, '\n') - line), 0, NULL);
      cr_assert_not_null(j);
      if (json_object_get(j, "step")) {
        cr_assert_eq(json_integer_value(json_object_get(j, "step")), next);
        cr_assert_eq(json_integer_value(json_object_get(j, "epoch")), next / 7);
        next++;
      }
      json_decref(j);
    }
    cr_assert_eq(next, 84);
    folder_remove(&f);
  }
  rt_team_free(team);
}

Test(train, stops_when_asked_and_reports, .timeout = 60) {
  tt_dataset d = dataset();
  rt_program step = train_program();
  rt_team *team = rt_team_new(1, NULL);
  folder f = folder_new();
  watcher w = {.stop_at = 3};
  rt_params *p = params();
  tt_fit_options o = options(&step, p, team, &d);
  o.report = watch, o.user = &w, o.stop = &w.stop, o.checkpoint = f.dir, o.checkpoint_every = 1000;
  tt_fit_result r;
  tt_error err = {0};
  cr_assert_eq(tt_fit(&o, &r, &err), TT_INTERRUPTED);
  cr_assert(r.steps == 21 && r.epochs == 3 && strstr(err.message, "after 21 steps"), "%s", err.message);
  cr_assert(w.lines == 3 && strstr(w.last, "epoch 3/12  loss "), "%s", w.last);
  rt_position at = {.config = "linear 4x3"};
  cr_assert_eq(rt_checkpoint_load(f.dir, p, &at, NULL), TT_OK);
  cr_assert(at.step == 21 && at.epoch == 3 && at.batch == 0 && at.seed == 77);
  rt_params_free(p);
  rt_team_free(team);
  folder_remove(&f);
}

/* The loss turns to NaN in step 45: the kernel that did it is named, and the parameters are those of step 45. */
Test(train, names_the_kernel_that_breaks, .timeout = 60) {
  tt_dataset d = dataset();
  rt_program step = train_program();
  rt_team *team = rt_team_new(2, NULL);
  float want[2][D * C], got[2][D * C];
  rt_params *p = params();
  tt_fit_options o = options(&step, p, team, &d);
  o.max_steps = break_at;
  cr_assert_eq(tt_fit(&o, NULL, NULL), TT_OK);
  copy_bits(p, want);
  rt_params_free(p);
  o.params = p = params();
  step.steps = bad_steps, step.n_steps = 4;
  o.max_steps = 0;
  tt_error err = {0};
  cr_assert_eq(tt_fit(&o, NULL, &err), TT_NOT_FINITE);
  cr_assert(strstr(err.message, "in step 45 (epoch 7, batch 3)") && strstr(err.message, "kernel breaks (net.c:4) writes f32[8,3] with 1 NaN"), "%s", err.message);
  copy_bits(p, got);
  cr_assert_eq(memcmp(want, got, sizeof want), 0);
  rt_params_free(p);
  rt_team_free(team);
}

Test(train, wrong_options_and_checkpoints, .timeout = 60) {
  tt_dataset d = dataset();
  rt_program step = train_program(), eval = eval_program();
  rt_team *team = rt_team_new(1, NULL);
  folder f = folder_new();
  rt_params *p = params();
  tt_fit_options good = options(&step, p, team, &d), o = good;
  good.max_steps = 2;
#define FAILS(change, code, text) { tt_error err = {0}; o = good; change; cr_assert_eq(tt_fit(&o, NULL, &err), code, "%s", err.message); cr_assert_not_null(strstr(err.message, text), "%s", err.message); }
  FAILS(o.schedule.name = "linear", TT_INVALID, "schedule linear is not known")
  FAILS(o.schedule.name = "multistep", TT_INVALID, "wants milestones, the steps")
  FAILS((o.schedule.name = "multistep", o.schedule.gamma = 0.5, o.schedule.milestones[0] = 5, o.schedule.milestones[1] = 5), TT_INVALID, "milestones that grow")
  FAILS(o.schedule.name = "cosine_restarts", TT_INVALID, "step_size of at least 1")
  FAILS(o.schedule.name = "polynomial", TT_INVALID, "a power above 0")
  FAILS((o.schedule.name = "onecycle", o.schedule.total = 11), TT_INVALID, "at least 7 steps")
  FAILS(o.schedule.name = "exponential", TT_INVALID, "a gamma above 0")
  FAILS((o.schedule.name = "plateau", o.schedule.gamma = 0.5), TT_INVALID, "nothing is tested")
  FAILS((o.schedule.name = "plateau", o.schedule.gamma = 1), TT_INVALID, "a gamma below 1")
  FAILS((o.schedule.name = "plateau", o.schedule.gamma = 0.5, o.schedule.patience = -1), TT_INVALID, "a patience of 0 or more")
  FAILS(o.schedule.gamma = NAN, TT_INVALID, "a gamma that is")
  FAILS(o.schedule.total = 5, TT_INVALID, "greater than its warmup")
  FAILS(o.loader.batch = 4, TT_INVALID, "x wants f32[8,4], it is given f32[4,4]")
  FAILS(o.loader.flatten = false, TT_INVALID, "it is given f32[8,1,2,2]")
  FAILS(o.step = &eval, TT_INVALID, "no scalar called loss")
  FAILS(o.resume = true, TT_INVALID, "nothing to resume from")
  FAILS((o.resume = true, o.checkpoint = f.dir), TT_IO, "checkpoint.safetensors")
  FAILS(o.log = in(&f, "none/log"), TT_IO, "none/log")
  FAILS(o.checkpoint = "/proc/none", TT_IO, "/proc/none")
  o = good;
  o.checkpoint = f.dir;
  cr_assert_eq(tt_fit(&o, NULL, NULL), TT_OK);
  good.checkpoint = f.dir, good.resume = true;
  FAILS(o.config = "linear 5x3", TT_INVALID, "made with 4x3, this run has 5x3\n")
  FAILS(o.seed = 78, TT_INVALID, "seed is 77")
  rt_params *other = rt_params_new();
  rt_params_add(other, "w", tt_tensor_new(TT_F32, &(tt_shape){2, {D, C + 1}}, NULL), true, false, NULL);
  FAILS(o.params = other, TT_INVALID, "holds 2 tensors, the model 1")
  rt_params_add(other, "m", tt_tensor_new(TT_F32, &(tt_shape){2, {D, C}}, NULL), true, false, NULL);
  FAILS(o.params = other, TT_INVALID, "parameter w is f32[4,3] in the checkpoint and f32[4,4] in the model")
  rt_params_free(other);
  tt_tensor *w = rt_params_find(p, "w")->tensor;
  cr_assert_eq(tt_safetensors_save(in(&f, "checkpoint.safetensors"), (tt_named_tensor[]){{"w", w}, {"w.momentum", w}}, 2, NULL, 0, NULL), TT_OK);
  FAILS((void)0, TT_FORMAT, "expected the position")
  rt_params_free(p);
  rt_team_free(team);
  folder_remove(&f);
}

/* Killed at a moment of its own choosing, again and again: there is always a whole checkpoint, and the end is the same. */
Test(train, killed_and_resumed, .timeout = 100) {
  tt_dataset d = dataset();
  rt_program step = train_program();
  float want[2][D * C], got[2][D * C];
  rt_team *team = rt_team_new(1, NULL);
  rt_params *p = params();
  tt_fit_options o = options(&step, p, team, &d);
  cr_assert_eq(tt_fit(&o, NULL, NULL), TT_OK);
  copy_bits(p, want);
  folder f = folder_new();
  rt_params_free(p);
  o.params = p = params();
  o.checkpoint = f.dir, o.checkpoint_every = 1, o.max_steps = 1;
  cr_assert_eq(tt_fit(&o, NULL, NULL), TT_OK);
  o.max_steps = 0, o.resume = true;
  for (int i = 0; i < 15; i++) {
    pid_t child = fork();
    if (child == 0) {
      rt_team *own = rt_team_new(1, NULL);
      o.team = own;
      o.params = params();
      _exit(tt_fit(&o, NULL, NULL) == TT_OK ? 0 : 1);
    }
    usleep(1000 + tt_random_word(2, 0, 0, (uint64_t)i) % 15000);
    kill(child, SIGKILL);
    int status;
    waitpid(child, &status, 0);
    cr_assert(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
    rt_position at = {.config = "linear 4x3"};
    tt_error err = {0};
    cr_assert_eq(rt_checkpoint_load(f.dir, p, &at, &err), TT_OK, "%s", err.message);
  }
  cr_assert_eq(tt_fit(&o, NULL, NULL), TT_OK);
  copy_bits(p, got);
  cr_assert_eq(memcmp(want, got, sizeof want), 0);
  rt_params_free(p);
  rt_team_free(team);
  folder_remove(&f);
}

Test(schedule, formulas) {
  tt_schedule s = {.name = "cosine", .lr = 1, .warmup = 10, .total = 110, .floor = 0.1};
  cr_assert_eq(tt_schedule_at(&s, 0), 0);
  cr_assert_float_eq(tt_schedule_at(&s, 5), 0.5, 1e-12);
  cr_assert_float_eq(tt_schedule_at(&s, 10), 1, 1e-12);
  cr_assert_float_eq(tt_schedule_at(&s, 60), 0.55, 1e-12);
  cr_assert_float_eq(tt_schedule_at(&s, 109), 0.1 + 0.9 * (1 + cos(acos(-1) * 0.99)) / 2, 1e-12);
  cr_assert_float_eq(tt_schedule_at(&s, 110), 0.1, 1e-12);
  cr_assert_float_eq(tt_schedule_at(&s, 160), 0.55, 1e-12);                  /* rises again past total */
  s.warmup_start = 0.2;
  cr_assert_float_eq(tt_schedule_at(&s, 0), 0.2, 1e-12);
  s = (tt_schedule){.name = "step", .lr = 2, .gamma = 0.5, .step_size = 3};
  cr_assert_eq(tt_schedule_at(&s, 2), 2);
  cr_assert_eq(tt_schedule_at(&s, 3), 1);
  cr_assert_eq(tt_schedule_at(&s, 8), 0.5);
  s = (tt_schedule){.name = "exponential", .lr = 2, .gamma = 0.5, .warmup = 1};
  cr_assert_eq(tt_schedule_at(&s, 4), 0.25);
  s = (tt_schedule){.name = "multistep", .lr = 2, .gamma = 0.5, .milestones = {3, 5}};
  cr_assert(tt_schedule_at(&s, 2) == 2 && tt_schedule_at(&s, 3) == 1 && tt_schedule_at(&s, 4) == 1 && tt_schedule_at(&s, 5) == 0.5 && tt_schedule_at(&s, 99) == 0.5);
  s = (tt_schedule){.name = "polynomial", .lr = 1, .power = 2, .total = 12, .warmup = 2, .floor = 0.5};
  cr_assert_float_eq(tt_schedule_at(&s, 7), 0.5 + 0.5 * 0.25, 1e-15);
  cr_assert_eq(tt_schedule_at(&s, 50), 0.5);
  s = (tt_schedule){.name = "cosine_restarts", .lr = 1, .step_size = 4, .restart_factor = 2};        /* periods 4, 8, 16 */
  cr_assert(tt_schedule_at(&s, 4) == 1 && tt_schedule_at(&s, 12) == 1);
  cr_assert_float_eq(tt_schedule_at(&s, 8), 0.5, 1e-15);
  cr_assert_float_eq(tt_schedule_at(&s, 20), 0.5, 1e-15);
  s.restart_factor = 0;
  cr_assert(tt_schedule_at(&s, 40000000) == 1);
  s = (tt_schedule){.name = "onecycle", .lr = 1, .total = 100};
  cr_assert_float_eq(tt_schedule_at(&s, 0), 0.04, 1e-15);
  cr_assert_float_eq(tt_schedule_at(&s, 29), 1, 1e-15);
  cr_assert_float_eq(tt_schedule_at(&s, 99), 4e-6, 1e-15);
  cr_assert_float_eq(tt_schedule_at(&s, 500), 4e-6, 1e-15);
  s = (tt_schedule){.lr = 3};
  cr_assert_eq(tt_schedule_at(&s, 1000000), 3);
  cr_assert_eq(rt_schedule_check(&s, NULL), TT_OK);
  s.warmup = -1;
  cr_assert_eq(rt_schedule_check(&s, NULL), TT_INVALID);
}

/* As torch.optim.lr_scheduler.ReduceLROnPlateau(factor=0.5, patience=1, threshold=0.1, min_lr=0.3) gives from lr 1. */
Test(schedule, plateau) {
  tt_schedule s = {.name = "plateau", .lr = 1, .gamma = 0.5, .patience = 1, .threshold = 0.1, .floor = 0.3};
  tt_plateau p = {INFINITY, 1, 0};
  static const double losses[] = {10, 9.5, 8.9, 8.8, 8.7, 8.7, NAN, 7, 7, 7, 7, 1}, want[] = {1, 1, 1, 1, 0.5, 0.5, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3};
  for (int i = 0; i < 12; i++) {
    tt_schedule_measured(&s, &p, losses[i]);
    cr_expect_float_eq(tt_schedule_at(&s, i) * p.scale, want[i], 1e-15, "epoch %d: %g", i, p.scale);
  }
  cr_expect_eq(p.best, 1);
  s.name = "constant", s.gamma = 0, p = (tt_plateau){INFINITY, 1, 0};
  for (int i = 0; i < 9; i++) tt_schedule_measured(&s, &p, 1);
  cr_expect(p.scale == 1 && p.bad == 0);
}

/* The rate is cut on the way, by a test loss that cannot get lower every time; stopped anywhere, it goes on to the same bits. */
Test(train, plateau_resumes_to_the_same_bits, .timeout = 60) {
  tt_dataset d = dataset();
  rt_program step = train_program(), eval = eval_program();
  rt_team *team = rt_team_new(2, NULL);
  float want[2][D * C], got[2][D * C];
  double scale = 1;
  for (int stop = 0; stop < 30; stop += stop == 0 ? 6 : 5) {
    folder f = folder_new();
    rt_params *p = params();
    tt_fit_options o = options(&step, p, team, &d);
    o.eval = &eval, o.test = &d, o.epochs = 5;
    o.schedule = (tt_schedule){.name = "plateau", .lr = 0.5, .gamma = 0.25, .patience = 0, .threshold = 0.3};
    o.checkpoint = f.dir, o.max_steps = stop;
    cr_assert_eq(tt_fit(&o, NULL, NULL), TT_OK);
    o.max_steps = 0, o.resume = stop > 0;
    if (stop) {
      rt_params_free(p);
      o.params = p = params();
      cr_assert_eq(tt_fit(&o, NULL, NULL), TT_OK);
    }
    rt_position at = {.config = o.config};
    cr_assert_eq(rt_checkpoint_load(f.dir, p, &at, NULL), TT_OK);
    copy_bits(p, stop ? got : want);
    if (!stop) scale = at.plateau.scale;
    cr_expect_lt(at.plateau.scale, 1, "the rate was not cut");
    cr_expect(at.plateau.scale == scale && (!stop || !memcmp(want, got, sizeof want)), "stopped after %d steps", stop);
    rt_params_free(p);
    folder_remove(&f);
  }
  rt_team_free(team);
}
