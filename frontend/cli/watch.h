/* watch.h: what a compilation says while it runs: --time-passes, and progress when it takes long. */
#ifndef TT_CLI_WATCH_H
#define TT_CLI_WATCH_H

#include "cli.h"

#define CLI_TIME_PASSES {"time-passes", NULL, "on stderr: milliseconds of each pass, and of each kernel's lowering, LLVM IR and machine code"}

typedef struct { bool times; double start; bool shown; } cli_watch;      /* the user of the functions below */
cli_watch cli_watch_new(const cli_args *a);
void cli_watch_pass(void *user, const char *pass, const ir_graph *g, double milliseconds);
void cli_watch_kernel(void *user, const char *name, int done, int total, const double milliseconds[3], bool cached);

#endif
