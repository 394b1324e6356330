/* schedule.c: the learning rate of step s, counted from 0.
 *
 *   s < warmup:   lr * (warmup_start + (1 - warmup_start) * s / warmup)
 *   constant:     lr
 *   step:         lr * gamma^floor(s / step_size)
 *   cosine:       floor + (lr - floor) * (1 + cos(pi * (s - warmup) / (total - warmup))) / 2; past total it rises again, as PyTorch's does
 *
 * Cosine without restarts is Loshchilov and Hutter 2017, "SGDR: stochastic gradient descent with warm restarts". */
#define _GNU_SOURCE
#include "runtime.h"

#include <math.h>
#include <string.h>

double tt_schedule_at(const tt_schedule *s, int64_t step) {
  if (step < s->warmup) return s->lr * (s->warmup_start + (1 - s->warmup_start) * (double)step / (double)s->warmup);
  if (!s->name || !strcmp(s->name, "constant")) return s->lr;
  if (!strcmp(s->name, "step")) return s->step_size > 0 ? s->lr * pow(s->gamma, (double)(step / s->step_size)) : s->lr;
  if (!strcmp(s->name, "cosine")) return s->floor + (s->lr - s->floor) * (1 + cos(M_PI * (double)(step - s->warmup) / (double)(s->total - s->warmup))) / 2;
  return NAN;                      /* no such schedule: tt_fit checks the name before it starts */
}

tt_status rt_schedule_check(const tt_schedule *s, tt_error *err) {
  const char *name = s->name ? s->name : "constant", *wrong = NULL;
  if (strcmp(name, "constant") && strcmp(name, "step") && strcmp(name, "cosine")) wrong = "is not known; use constant, step or cosine";
  else if (!isfinite(s->lr) || s->lr < 0) wrong = "wants a rate (lr) that is a finite number, not below 0";
  else if (s->warmup < 0) wrong = "wants a warmup of 0 or more steps";
  else if (!strcmp(name, "step") && s->step_size < 1) wrong = "wants a step_size of at least 1";
  else if (!strcmp(name, "cosine") && s->total <= s->warmup) wrong = "wants a total number of steps greater than its warmup";
  if (!wrong) return TT_OK;
  return tt_fail(err, TT_INVALID, "error: schedule %.50s %s\n  at lr %g, warmup %lld, total %lld, step_size %lld\n  fix: change the schedule's options", name, wrong, s->lr, (long long)s->warmup, (long long)s->total, (long long)s->step_size);
}
