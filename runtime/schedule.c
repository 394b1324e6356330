/* schedule.c: the learning rate of step s, counted from 0.
 *
 *   s < warmup:   lr * (warmup_start + (1 - warmup_start) * s / warmup)
 *   constant:     lr
 *   step:         lr * gamma^floor(s / step_size)
 *   cosine:       floor + (lr - floor) * (1 + cos(pi * (s - warmup) / (total - warmup))) / 2, and floor from s = total on
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
  if (!strcmp(s->name, "cosine")) {
    if (step >= s->total) return s->floor;
    return s->floor + (s->lr - s->floor) * (1 + cos(M_PI * (double)(step - s->warmup) / (double)(s->total - s->warmup))) / 2;
  }
  return NAN;                      /* no such schedule: tt_fit checks the name before it starts */
}
