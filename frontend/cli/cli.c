/* cli.c: the words of the command line, against the tables of options; help; the nearest valid words for a wrong one. */
#include "cli.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

const cli_option cli_no_options[] = {{NULL, NULL, NULL}};

const cli_command cli_commands[] = {
  {"train", "MODEL --data SET:DIR [options]", "trains a model", cli_train_options, cli_train},
  {"eval", "MODEL FILE --data SET:DIR [options]", "loads weights (safetensors) and prints loss and accuracy on the test part", cli_eval_options, cli_eval},
  {"generate", "MODEL --checkpoint DIR|--weights FILE --prompt TEXT [options]", "writes on from a text, token by token", cli_generate_options, cli_generate},
  {"tokenize", "train|encode|decode|count FILE [options]", "learns byte pairs from a text, turns texts into tokens and back, and counts them; FILE may be -", cli_tokenize_options, cli_tokenize},
  {"dump", "MODEL --stage=NAME [options]", "prints any stage of a model's compilation", cli_dump_options, cli_dump},
  {"sample", "MODEL --data SET:DIR --checkpoint DIR [options]", "writes a sheet of images that a trained vae or gan makes, as PNG", cli_sample_options, cli_sample},
  {"run", "FILE.tt --input NAME=FILE.npy ... [options]", "runs a graph from its text form", cli_run_options, cli_run},
  {"opt", "FILE.tt --passes=a,b,c", "runs passes on a graph in text form and prints the result", cli_opt_options, cli_opt},
  {"plan", "MODEL [options]", "prints the memory that a model needs: its peak, what lies there, and when", cli_plan_options, cli_plan},
  {"bench", "WHAT [WORKLOAD ...] [options]", cli_bench_about, cli_bench_options, cli_bench},
  {"tune", "MODEL --minutes N [--train] [options]", "measures plans for the costly kernels of a model; later compilations use those that won", cli_tune_options, cli_tune},
  {"selftest", "[DIR]", "checks every op, JIT against interpreter, on this CPU; with DIR, the reference cases in it", cli_selftest_options, cli_selftest},
  {"compile", "MODEL [--train] [--cpu NAME,...] -o DIR", "compiles a model ahead of time: an object file, its header, weights, an example", cli_compile_options, cli_compile},
  {"cache", "ls|verify|clear", "lists, checks or removes the compiled kernels that are kept on disk", cli_no_options, cli_cache},
  {"ops", "", "lists every op of the language", cli_no_options, cli_ops},
  {"info", "[options]", "prints this machine's features and caches, and measures its limits", cli_info_options, cli_info},
  {NULL, NULL, NULL, NULL, NULL},
};

/* Levenshtein distance, for words of at most 63 letters. */
static int distance(const char *a, const char *b) {
  int row[64], n = (int)strnlen(b, 63);
  for (int j = 0; j <= n; j++) row[j] = j;
  for (int i = 1; a[i - 1]; i++) {
    int diagonal = row[0];
    row[0] = i;
    for (int j = 1; j <= n; j++) {
      int up = row[j], best = diagonal + (a[i - 1] != b[j - 1]);
      if (up + 1 < best) best = up + 1;
      if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
      row[j] = best, diagonal = up;
    }
  }
  return row[n];
}

int cli_unknown(const char *what, const char *word, const char *const *names) {
  fprintf(stderr, "tinytorch: unknown %s '%s'", what, word);
  const char *near[3];
  int n = 0;
  for (int limit = 1; limit <= 3 && n < 3; limit++)
    for (int i = 0; names[i] && n < 3; i++) {
      int d = distance(word, names[i]);
      bool starts = limit == 3 && strlen(word) >= 2 && strncmp(names[i], word, strlen(word)) == 0;
      bool seen = false;
      for (int j = 0; j < n; j++) seen |= near[j] == names[i];
      if (!seen && ((d == limit && d < (int)strlen(names[i])) || starts)) near[n++] = names[i];
    }
  if (n) {
    fprintf(stderr, "; did you mean ");
    for (int i = 0; i < n; i++) fprintf(stderr, "%s%s", i ? ", " : "", near[i]);
    fprintf(stderr, "?\n");
  } else {
    fprintf(stderr, "; valid:");
    for (int i = 0; names[i]; i++) fprintf(stderr, " %s", names[i]);
    fprintf(stderr, "\n");
  }
  return 2;
}

bool cli_choice(const cli_args *a, const char *option, const char *const *names) {
  const char *word = cli_get(a, option, NULL);
  for (int i = 0; word && names[i]; i++)
    if (strcmp(names[i], word) == 0) return true;
  if (word) cli_unknown(option, word, names);
  return !word;
}

bool cli_passes(const cli_args *a, const char *option, bool optional_only) {
  const char *names[64], *rest = cli_get(a, option, "");
  int n = 0;
  for (const pass_info *p = pass_table; p->name && n < 63; p++)
    if (p->optional || !optional_only) names[n++] = p->name;
  names[n] = NULL;
  while (*(rest += strspn(rest, ", "))) {
    char word[64];
    size_t length = strcspn(rest, ", ");
    snprintf(word, sizeof word, "%.*s", (int)(length < 63 ? length : 63), rest);
    bool known = false;
    for (int i = 0; i < n; i++) known |= strcmp(names[i], word) == 0;
    if (!known) {
      cli_unknown(optional_only ? "optional pass" : "pass", word, names);
      return false;
    }
    rest += length;
  }
  return true;
}

bool cli_precision(const cli_args *a) {
  return cli_choice(a, "dtype", (const char *const[]){"f32", "bf16", NULL}) && cli_choice(a, "matmul-precision", (const char *const[]){"f32", "bf16x6", NULL});
}

bool cli_optimizer(const cli_args *a) {
  const char *optimizers[32];
  int n = 0;
  for (const optim_info *o = optim_table; o->name && n < 31; o++) optimizers[n++] = o->name;
  optimizers[n] = NULL;
  return cli_choice(a, "optimizer", optimizers);
}

bool cli_target(const cli_args *a) {
  static const char *const backends[] = {"jit", "interp", NULL};
  return cli_precision(a) && cli_choice(a, "backend", backends) && cli_choice(a, "cpu", cg_cpu_names) && cli_optimizer(a) && cli_passes(a, "skip", true);
}

int cli_fail(const tt_error *err) {
  fflush(stdout);
  bool has_prefix = strncmp(err->message, "error:", 6) == 0;
  fprintf(stderr, "%s%s\n", has_prefix ? "" : "error: ", err->message[0] ? err->message : "failed without a message");
  return 1;
}

static void print_usage(FILE *to, const cli_command *c) {
  fprintf(to, "usage: tinytorch %s %s\n\n%s\n", c->name, c->usage, c->about);
  if (c->options[0].name) fprintf(to, "\n");
  for (const cli_option *o = c->options; o->name; o++) {
    char left[64];
    snprintf(left, sizeof left, "--%s%s%s", o->name, o->value && o->value[0] != '[' ? " " : "", o->value ? o->value : "");
    fprintf(to, "  %-28s %s\n", left, o->about);
  }
}

int cli_usage(const cli_args *a, const char *message) {
  fprintf(stderr, "tinytorch %s: %s\n", a->command->name, message);
  fprintf(stderr, "usage: tinytorch %s %s   (--help for the options)\n", a->command->name, a->command->usage);
  return 2;
}

static void print_help(FILE *to) {
  fprintf(to, "usage: tinytorch COMMAND ...   (COMMAND --help says more)\n\n");
  for (const cli_command *c = cli_commands; c->name; c++) fprintf(to, "  %-10s %.*s\n", c->name, (int)strcspn(c->about, "\n"), c->about);
}

/* Reads options into args; 0, or the exit status. */
static int parse(cli_args *a, int argc, char **argv) {
  for (int i = 0; i < argc; i++) {
    const char *word = strcmp(argv[i], "-o") == 0 ? "--output" : argv[i];
    if (strncmp(word, "--", 2) != 0) {
      if (a->n_words == 64) return cli_usage(a, "too many arguments");
      a->words[a->n_words++] = word;
      continue;
    }
    const char *equals = strchr(word, '=');
    char name[64];
    snprintf(name, sizeof name, "%.*s", equals ? (int)(equals - word - 2) : 62, word + 2);
    const cli_option *o = a->command->options;
    while (o->name && strcmp(o->name, name) != 0) o++;
    if (!o->name) {
      const char *names[64];
      int n = 0;
      for (const cli_option *p = a->command->options; p->name; p++) names[n++] = p->name;
      names[n] = NULL;
      return cli_unknown("option", name, names);
    }
    const char *value = "";
    if (o->value && o->value[0] == '[') value = equals ? equals + 1 : "";
    else if (o->value) {
      value = equals ? equals + 1 : i + 1 < argc ? argv[++i] : NULL;
      if (!value) {
        fprintf(stderr, "tinytorch %s: --%s wants a value: %s\n", a->command->name, o->name, o->value);
        return 2;
      }
    } else if (equals) {
      fprintf(stderr, "tinytorch %s: --%s takes no value\n", a->command->name, o->name);
      return 2;
    }
    if (a->n_given == 64) return cli_usage(a, "too many options");
    a->given[a->n_given] = o, a->values[a->n_given++] = value;
  }
  return 0;
}

int cli_main(int argc, char **argv) {
  if (argc < 2) {
    print_help(stderr);
    return 2;
  }
  if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
    print_help(stdout);
    return 0;
  }
  const cli_command *c = cli_commands;
  while (c->name && strcmp(c->name, argv[1]) != 0) c++;
  if (!c->name) {
    const char *names[32];
    int n = 0;
    for (const cli_command *p = cli_commands; p->name; p++) names[n++] = p->name;
    names[n] = NULL;
    return cli_unknown("command", argv[1], names);
  }
  for (int i = 2; i < argc; i++)
    if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
      print_usage(stdout, c);
      return 0;
    }
  cli_args args = {.command = c};
  int status = parse(&args, argc - 2, argv + 2);
  return status ? status : c->run(&args);
}

const char *cli_get(const cli_args *a, const char *option, const char *otherwise) {
  for (int i = a->n_given - 1; i >= 0; i--)
    if (strcmp(a->given[i]->name, option) == 0) return a->values[i];
  return otherwise;
}

bool cli_has(const cli_args *a, const char *option) { return cli_get(a, option, NULL) != NULL; }

bool cli_int(const cli_args *a, const char *option, int64_t otherwise, int64_t least, int64_t *value) {
  const char *text = cli_get(a, option, NULL);
  int64_t most = strcmp(option, "threads") == 0 ? 4096 : strcmp(option, "seed") == 0 ? INT64_MAX : INT32_MAX;     /* a team's; the others become int */
  *value = otherwise;
  if (!text) return true;
  char *end;
  errno = 0;
  *value = strtoll(text, &end, 10);
  if (*text && !*end && !errno && *value >= least && *value <= most) return true;
  fprintf(stderr, "tinytorch %s: --%s wants a whole number from %lld to %lld, not '%s'\n", a->command->name, option, (long long)least, (long long)most, text);
  return false;
}

bool cli_double(const cli_args *a, const char *option, double otherwise, double *value) {
  const char *text = cli_get(a, option, NULL);
  *value = otherwise;
  if (!text) return true;
  char *end;
  *value = strtod(text, &end);
  if (*text && !*end && *value - *value == 0) return true;
  fprintf(stderr, "tinytorch %s: --%s wants a number, not '%s'\n", a->command->name, option, text);
  return false;
}

bool cli_bytes(const cli_args *a, const char *option, int64_t *value) {
  static const struct { const char *suffix; double factor; } units[] = {{"", 1}, {"B", 1}, {"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}};
  const char *text = cli_get(a, option, NULL);
  *value = 0;
  if (!text) return true;
  char *end;
  double v = strtod(text, &end);
  end += strspn(end, " ");
  for (size_t i = 0; i < sizeof units / sizeof *units; i++)
    if (end != text && strcmp(end, units[i].suffix) == 0 && v > 0 && v * units[i].factor >= 1 && v * units[i].factor < 1e15) return *value = (int64_t)(v * units[i].factor), true;
  fprintf(stderr, "tinytorch %s: --%s wants a size above 0, such as 96KiB, 50MiB or 1.5GiB, not '%s'\n", a->command->name, option, text);
  return false;
}

char *cli_read_file(const char *path, size_t *length, tt_error *err) {
  FILE *f = strcmp(path, "-") == 0 ? stdin : fopen(path, "rb");
  if (!f) {
    tt_fail(err, TT_IO, "error: the file cannot be read: %s\n  at %s\n  fix: give the path of a file that exists and may be read, or - for standard input", strerror(errno), path);
    return NULL;
  }
  size_t size = 0, capacity = 1 << 16, n;
  char *text = malloc(capacity + 1);
  while (text && (n = fread(text + size, 1, capacity - size, f)) > 0) {
    size += n;
    if (size == capacity) {
      char *larger = realloc(text, 2 * capacity + 1);
      if (!larger) free(text);
      text = larger, capacity *= 2;
    }
  }
  bool failed = ferror(f);
  int cause = errno;
  if (f != stdin) fclose(f);
  if (!text || failed) {
    free(text);
    if (failed) tt_fail(err, TT_IO, "error: the file cannot be read: %s\n  at %s\n  fix: give the path of a file, not of a folder", strerror(cause), path);
    else tt_fail(err, TT_NO_MEMORY, "error: no memory for the file\n  at %s\n  fix: give a smaller file", path);
    return NULL;
  }
  text[size] = 0;
  *length = size;
  return text;
}

bool cli_write(const char *path, const char *text, tt_error *err) {
  bool standard = !path || strcmp(path, "-") == 0;
  FILE *f = standard ? stdout : fopen(path, "wb");
  if (!f) {
    tt_fail(err, TT_IO, "error: the file cannot be written: %s\n  at %s\n  fix: give a path in a folder that may be written", strerror(errno), path);
    return false;
  }
  bool ok = fputs(text, f) >= 0;
  if ((standard ? fflush(f) : fclose(f)) != 0) ok = false;
  if (!ok) tt_fail(err, TT_IO, "error: what is written is not whole: %s\n  at %s\n  fix: make room, or write to another place", strerror(errno), standard ? "standard output" : path);
  return ok;
}
