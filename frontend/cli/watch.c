/* watch.c: passes and kernels with their times, or a line of progress from the first second on. */
#include <time.h>
#include <unistd.h>

#include "watch.h"

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

cli_watch cli_watch_new(const cli_args *a) { return (cli_watch){cli_has(a, "time-passes"), now(), false}; }

void cli_watch_pass(void *user, const char *pass, const ir_graph *g, double milliseconds) {
  const cli_watch *w = user;
  if (w->times) fprintf(stderr, "%8.2f ms  %-10s %5u rows\n", milliseconds, pass, g->n_nodes);
}

void cli_watch_kernel(void *user, const char *name, int done, int total, const double milliseconds[3], bool cached) {
  cli_watch *w = user;
  if (done == 1) w->shown = false;
  if (w->times) {
    char how[100] = "cached";
    if (!cached) snprintf(how, sizeof how, "LLVM IR %6.2f, machine code %6.2f", milliseconds[1], milliseconds[2]);
    fprintf(stderr, "%8.2f ms  kernel %3d/%d: lowering %6.2f, %-38s %s\n", milliseconds[0] + milliseconds[1] + milliseconds[2], done, total, milliseconds[0], how, name);
    return;
  }
  if (!isatty(2) || now() - w->start < 1) return;
  if (done < total) fprintf(stderr, "\r\033[Kcompiling: %d of %d kernels", done, total), w->shown = true;
  else if (w->shown) fprintf(stderr, "\r\033[K");
  fflush(stderr);
}
