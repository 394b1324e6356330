/* The machine's report: every line is text of one line, every figure in it is a number greater than 0. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/runtime.h"

typedef struct { int lines, figures; bool ok; } seen;

static void line(void *user, const char *text) {
  seen *s = user;
  s->lines++;
  if (strchr(text, '\n')) s->ok = false;
  if (!strstr(text, "thread)") && !strstr(text, "threads)")) return;
  s->figures++;
  if (!(atof(text + 44) > 0)) s->ok = false;                                 /* the name's column is 44 wide */
}

Test(machine, report, .timeout = 100) {
  rt_team *team = rt_team_new(2, NULL);
  seen s = {.ok = true};
  rt_machine_report(team, line, &s);
  cr_assert(s.ok);
  cr_assert_geq(s.lines, 10);
  cr_assert_geq(s.figures, 7);
  cr_assert_gt(rt_machine_peak_f32(team), 1e8);
  rt_team_free(team);
}
