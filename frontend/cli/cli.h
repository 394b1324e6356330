/* cli.h: the `tinytorch` command. Each command is a row of the table in cli.c: its options, what it is for, and a function that
 * returns the exit status (0 fine, 1 failed, 2 wrongly called). Only this folder prints. */
#ifndef TT_CLI_H
#define TT_CLI_H

#include <stdio.h>

#include "../../codegen/codegen.h"
#include "../tinytorch.h"

typedef struct { const char *name, *value, *about; } cli_option;      /* value: what to call it in the help; "[=X]": may be left out; NULL: a flag */

typedef struct cli_command cli_command;
typedef struct {
  const cli_command *command;
  const char *words[64];                 /* arguments that are not options */
  int n_words;
  const cli_option *given[64];
  const char *values[64];
  int n_given;
} cli_args;

struct cli_command {
  const char *name, *usage, *about;     /* about: its first line stands in the list of commands */
  const cli_option *options;             /* ends with a NULL name */
  int (*run)(const cli_args *args);
};
extern const cli_command cli_commands[];   /* ends with a NULL name */

int cli_main(int argc, char **argv);
const char *cli_get(const cli_args *a, const char *option, const char *otherwise);      /* the last one given */
bool cli_has(const cli_args *a, const char *option);
/* Numbers checked whole and in range: what is not is an error that names the option; false then. */
bool cli_int(const cli_args *a, const char *option, int64_t otherwise, int64_t least, int64_t *value);
bool cli_double(const cli_args *a, const char *option, double otherwise, double *value);
bool cli_bytes(const cli_args *a, const char *option, int64_t *value);     /* "1048576", "96KiB", "1.5MiB", "2GiB"; 0: not given */
/* "unknown X 'word'; did you mean a, b?" on stderr; returns 2. names ends with NULL. */
int cli_unknown(const char *what, const char *word, const char *const *names);
/* Whether the option, if it is given, is one of the names; else cli_unknown has said so. */
bool cli_choice(const cli_args *a, const char *option, const char *const *names);
bool cli_optimizer(const cli_args *a);      /* --optimizer is a row of optim.def */
bool cli_target(const cli_args *a);        /* the same for backend, cpu, optimizer and skip, where the command has them */
bool cli_precision(const cli_args *a);     /* for --dtype and --matmul-precision */
bool cli_passes(const cli_args *a, const char *option, bool optional_only);      /* the same for a list of passes */
int cli_fail(const tt_error *err);         /* prints it, returns 1 */
int cli_usage(const cli_args *a, const char *message);   /* prints message and usage, returns 2 */
char *cli_read_file(const char *path, size_t *length, tt_error *err);
bool cli_write(const char *path, const char *text, tt_error *err);      /* NULL or "-": standard output */

int cli_train(const cli_args *a), cli_eval(const cli_args *a), cli_sample(const cli_args *a), cli_dump(const cli_args *a), cli_run(const cli_args *a), cli_opt(const cli_args *a);
int cli_plan(const cli_args *a), cli_tune(const cli_args *a), cli_bench(const cli_args *a), cli_selftest(const cli_args *a), cli_ops(const cli_args *a), cli_info(const cli_args *a), cli_cache(const cli_args *a), cli_compile(const cli_args *a), cli_generate(const cli_args *a), cli_tokenize(const cli_args *a);
extern const char cli_bench_about[];
extern const cli_option cli_train_options[], cli_eval_options[], cli_sample_options[], cli_dump_options[], cli_run_options[], cli_opt_options[], cli_plan_options[], cli_tune_options[], cli_bench_options[],
    cli_selftest_options[], cli_info_options[], cli_compile_options[], cli_generate_options[], cli_tokenize_options[], cli_no_options[];

#endif
