/* schedule.c: the learning rate of step s, counted from 0. One row a schedule: what it wants, and its formula for u = s - warmup of
 * n = total - warmup steps; in the first warmup steps the rate is lr * (warmup_start + (1 - warmup_start) * s / warmup). "cosine", "polynomial",
 * "onecycle" follow from the length of training; the others do not. "plateau" follows from what is measured: its formula is the rate before any cut, and the cuts are a
 * factor that the trainer keeps with its position. Formulas are PyTorch's. */
#define _GNU_SOURCE
#include "runtime.h"

#include <math.h>
#include <string.h>

static double between(double from, double to, double share) { return to + (from - to) * (1 + cos(M_PI * share)) / 2; }

static double constant(const tt_schedule *s, double u, double n) { return s->lr; }
static double step(const tt_schedule *s, double u, double n) { return s->lr * pow(s->gamma, floor((u + (double)s->warmup) / (double)s->step_size)); }
static double exponential(const tt_schedule *s, double u, double n) { return s->lr * pow(s->gamma, u); }
static double polynomial(const tt_schedule *s, double u, double n) { return s->floor + (s->lr - s->floor) * pow(1 - fmin(u, n) / n, s->power); }
static double multistep(const tt_schedule *s, double u, double n) {
  int cuts = 0;
  for (int i = 0; i < TT_MILESTONES && s->milestones[i]; i++) cuts += (double)s->milestones[i] <= u + (double)s->warmup;
  return s->lr * pow(s->gamma, cuts);
}
/* Loshchilov & Hutter 2017, "SGDR"; past total it rises again. */
static double cosine(const tt_schedule *s, double u, double n) { return between(s->lr, s->floor, u / n); }
static double cosine_restarts(const tt_schedule *s, double u, double n) {
  double period = (double)s->step_size, grows = s->restart_factor > 0 ? (double)s->restart_factor : 1;
  if (grows == 1) u = fmod(u, period);
  else
    for (; u >= period; period *= grows) u -= period;
  return between(s->lr, s->floor, u / period);
}
/* Smith & Topin 2019, "Super-convergence": from lr / 25 to lr in 3 tenths of the steps, and down to lr / 250000. */
static double onecycle(const tt_schedule *s, double u, double n) {
  double top = 0.3 * n - 1, start = s->lr / 25;
  return u <= top ? between(start, s->lr, u / top) : between(s->lr, start / 1e4, fmin(1, (u - top) / (n - 1 - top)));
}

static double plateau(const tt_schedule *s, double u, double n) { return s->lr; }

static const struct { const char *name; double (*rate)(const tt_schedule *, double u, double n); bool wants_total, wants_size, wants_gamma; } rows[] = {
  {"constant", constant}, {"step", step, .wants_size = true, .wants_gamma = true}, {"cosine", cosine, .wants_total = true}, {"cosine_restarts", cosine_restarts, .wants_size = true},
  {"exponential", exponential, .wants_gamma = true}, {"polynomial", polynomial, .wants_total = true}, {"multistep", multistep, .wants_gamma = true}, {"onecycle", onecycle, .wants_total = true},
  {"plateau", plateau, .wants_gamma = true}};
enum { ROWS = sizeof rows / sizeof *rows };

static int find(const char *name) {
  for (int i = 0; i < ROWS; i++)
    if (!strcmp(rows[i].name, name ? name : "constant")) return i;
  return -1;
}

const char *tt_schedule_name(int i) { return i >= 0 && i < ROWS ? rows[i].name : NULL; }

double tt_schedule_at(const tt_schedule *s, int64_t at) {
  int i = find(s->name);
  if (i < 0) return NAN;           /* tt_fit checks the name before it starts */
  if (at < s->warmup) return s->lr * (s->warmup_start + (1 - s->warmup_start) * (double)at / (double)s->warmup);
  return rows[i].rate(s, (double)(at - s->warmup), (double)(s->total - s->warmup));
}

bool rt_schedule_wants_loss(const tt_schedule *s) {
  int i = find(s->name);
  return i >= 0 && rows[i].rate == plateau;
}

/* torch.optim.lr_scheduler.ReduceLROnPlateau, mode min, with a relative threshold. */
void tt_schedule_measured(const tt_schedule *s, tt_plateau *p, double loss) {
  if (!rt_schedule_wants_loss(s)) return;
  if (loss < p->best * (1 - (s->threshold != 0 ? s->threshold : 1e-4))) p->best = loss, p->bad = 0;
  else p->bad++;
  if (p->bad <= s->patience) return;
  p->scale = fmax(p->scale * s->gamma, s->lr > 0 ? s->floor / s->lr : 0);
  p->bad = 0;
}

bool rt_schedule_wants_total(const tt_schedule *s) {
  int i = find(s->name);
  return i >= 0 && rows[i].wants_total;
}

tt_status rt_schedule_check(const tt_schedule *s, tt_error *err) {
  char known[200] = "is not known; use one of ";
  const char *name = s->name ? s->name : "constant", *wrong = NULL;
  int row = find(name);
  for (int i = 0; i < ROWS; i++) strcat(strcat(known, i ? ", " : ""), rows[i].name);
  if (row < 0) wrong = known;
  else if (!isfinite(s->lr) || s->lr < 0) wrong = "wants a rate (lr) that is a finite number, not below 0";
  else if (s->warmup < 0) wrong = "wants a warmup of 0 or more steps";
  else if (rows[row].wants_size && s->step_size < 1) wrong = "wants a step_size of at least 1";
  else if (rows[row].wants_total && s->total <= s->warmup) wrong = "wants a total number of steps greater than its warmup";
  else if (rows[row].rate == onecycle && s->total - s->warmup < 7) wrong = "wants at least 7 steps behind its warmup";
  else if (rows[row].rate == multistep && s->milestones[0] < 1) wrong = "wants milestones, the steps at which the rate is cut";
  else if (!isfinite(s->gamma) || s->gamma < 0) wrong = "wants a gamma that is a finite number, not below 0";
  else if (rows[row].wants_gamma && s->gamma == 0) wrong = "wants a gamma above 0";
  else if (rows[row].rate == plateau && !(s->gamma < 1)) wrong = "wants a gamma below 1";
  else if (rows[row].rate == plateau && (s->patience < 0 || !(s->threshold >= 0 && s->threshold < 1))) wrong = "wants a patience of 0 or more epochs, and a threshold from 0 to below 1";
  else if (rows[row].rate == polynomial && !(s->power > 0)) wrong = "wants a power above 0";
  for (int i = 1; !wrong && i < TT_MILESTONES && s->milestones[i]; i++)
    if (s->milestones[i] <= s->milestones[i - 1]) wrong = "wants milestones that grow";
  if (!wrong) return TT_OK;
  return tt_fail(err, TT_INVALID, "error: schedule %.50s %s\n  at lr %g, warmup %lld, total %lld, step_size %lld\n  fix: change the schedule's options", name, wrong, s->lr, (long long)s->warmup, (long long)s->total, (long long)s->step_size);
}
