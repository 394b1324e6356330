/* tokenize.c: the command tokenize: byte pairs are learned from a text and written as GPT-2's files; a text becomes the numbers of its tokens, and numbers a text; and what
 * a tokenizer makes of a text is counted. Texts are bytes, valid UTF-8 or not. */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "options.h"

const cli_option cli_tokenize_options[] = {
  {"vocab-size", "N", "train: tokens, at least 256: the bytes, then what is learned"},
  {"output", "DIR", "(-o DIR) train: the folder for vocab.json and merges.txt"},
  {"tokenizer", "DIR", "encode, decode, count: a folder with vocab.json and merges.txt: GPT-2's, what train wrote here, or a checkpoint's"},
  {"top", "N", "count: the N most frequent tokens (default 20)"},
  {NULL, NULL, NULL},
};

typedef struct { char *data; size_t bytes; const char *path; } text;

/* "the\n" with what is not printable as C writes it. */
static void print_token(const tt_tokenizer *t, int64_t id) {
  size_t n;
  const char *s = tt_tokenizer_token(t, id, &n);
  putchar('"');
  for (size_t i = 0; i < n; i++) {
    uint8_t c = (uint8_t)s[i];
    if (c == '"' || c == '\\') printf("\\%c", c);
    else if (c == '\n') printf("\\n");
    else if (c == '\t') printf("\\t");
    else if (c < ' ' || c == 0x7f) printf("\\%03o", c);
    else putchar(c);
  }
  putchar('"');
}

static tt_status written(const char *path, tt_error *err) {
  if (fflush(stdout) == 0 && !ferror(stdout)) return TT_OK;
  return tt_fail(err, TT_IO, "error: what is written is not whole: %s\n  at the tokens of %s\n  fix: make room, or write to another place", strerror(errno), path);
}

static int compare_counts(const void *a, const void *b) {
  const int64_t *x = a, *y = b;
  return x[1] != y[1] ? (x[1] < y[1] ? 1 : -1) : (x[0] > y[0]) - (x[0] < y[0]);
}

/* One line, and the most frequent tokens below it. */
static tt_status count(const text *in, const tt_tokenizer *t, int64_t top, tt_error *err) {
  int32_t *ids;
  int64_t n, size = tt_tokenizer_size(t), different = 0;
  if (tt_tokenizer_encode(t, in->data, in->bytes, &ids, &n, err) != TT_OK) return err->status;
  int64_t (*counts)[2] = calloc((size_t)size, sizeof *counts);
  if (!counts) return free(ids), tt_fail(err, TT_NO_MEMORY, "error: no memory to count %lld tokens\n  at %s\n  fix: free memory", (long long)size, in->path);
  for (int64_t i = 0; i < size; i++) counts[i][0] = i;
  for (int64_t i = 0; i < n; i++) counts[ids[i]][1]++;
  for (int64_t i = 0; i < size; i++) different += counts[i][1] > 0;
  printf("%s: %zu bytes, %lld tokens, %.3f bytes a token, %lld of the vocabulary's %lld occur\n", in->path, in->bytes, (long long)n, n ? (double)in->bytes / (double)n : 0, (long long)different, (long long)size);
  qsort(counts, (size_t)size, sizeof *counts, compare_counts);
  for (int64_t i = 0; i < top && i < different; i++) {
    printf("%10lld %6.2f%% %8lld  ", (long long)counts[i][1], 100 * (double)counts[i][1] / (double)n, (long long)counts[i][0]);
    print_token(t, counts[i][0]);
    putchar('\n');
  }
  free(counts), free(ids);
  return written(in->path, err);
}

/* Numbers with blanks between them, on one line. */
static tt_status encode(const text *in, const tt_tokenizer *t, tt_error *err) {
  int32_t *ids;
  int64_t n;
  if (tt_tokenizer_encode(t, in->data, in->bytes, &ids, &n, err) != TT_OK) return err->status;
  for (int64_t i = 0; i < n; i++) printf("%s%d", i ? " " : "", ids[i]);
  putchar('\n');
  free(ids);
  return written(in->path, err);
}

static tt_status decode(const text *in, const tt_tokenizer *t, tt_error *err) {
  int64_t size = tt_tokenizer_size(t), place = 0;
  for (const char *at = in->data, *end = in->data + in->bytes; at < end; place++) {
    while (at < end && isspace((uint8_t)*at)) at++;
    if (at == end) break;
    char *after;
    errno = 0;
    long long id = isdigit((uint8_t)*at) ? strtoll(at, &after, 10) : -1;
    bool whole = id >= 0 && !errno && (after == end || isspace((uint8_t)*after));
    if (!whole || id >= size)
      return tt_fail(err, TT_INVALID, "error: \"%.*s\" is no token\n  at number %lld of %s\n  fix: give numbers from 0 to %lld with blanks between them, and the tokenizer that made them", (int)strcspn(at, " \t\r\n"), at, (long long)place,
                     in->path, (long long)size - 1);
    size_t n;
    const char *bytes = tt_tokenizer_token(t, id, &n);
    fwrite(bytes, 1, n, stdout);
    at = after;
  }
  return written(in->path, err);
}

static tt_status learn(const cli_args *a, const text *in, int64_t size, tt_error *err) {
  char tokens[32];
  snprintf(tokens, sizeof tokens, "bpe:%lld", (long long)size);
  tt_tokenizer *t = tt_tokenizer_train(in->data, in->bytes, tokens, err);
  const char *folder = cli_get(a, "output", NULL);
  if (t && tt_tokenizer_save(t, folder, err) == TT_OK && count(in, t, 0, err) == TT_OK) printf("%s/: vocab.json, merges.txt\n", folder);
  tt_tokenizer_free(t);
  return err->status;
}

int cli_tokenize(const cli_args *a) {
  static const char *const actions[] = {"train", "encode", "decode", "count", NULL};
  enum { TRAIN, ENCODE, DECODE, COUNT };
  tt_error err = {0};
  if (a->n_words < 1) return cli_usage(a, "one of train, encode, decode, count");
  int action = 0;
  while (actions[action] && strcmp(actions[action], a->words[0])) action++;
  if (!actions[action]) return cli_unknown("action", a->words[0], actions);
  if (a->n_words != 2) return cli_usage(a, "one file, or - for standard input");
  int64_t size, top;
  if (!cli_int(a, "vocab-size", 0, 256, &size) || !cli_int(a, "top", 20, 0, &top)) return 2;
  if (action == TRAIN && (!size || !cli_has(a, "output"))) return cli_usage(a, size ? "-o DIR is missing" : "--vocab-size is missing");
  if (action != TRAIN && !cli_has(a, "tokenizer")) return cli_usage(a, "--tokenizer is missing");
  tt_tokenizer *t = action == TRAIN ? NULL : tt_tokenizer_load(cli_get(a, "tokenizer", NULL), &err);
  text in = {.path = a->words[1]};
  if ((action == TRAIN || t) && (in.data = cli_read_file(in.path, &in.bytes, &err))) {
    if (!strcmp(in.path, "-")) in.path = "standard input";
    if (action == TRAIN) learn(a, &in, size, &err);
    else if (action == ENCODE) encode(&in, t, &err);
    else if (action == DECODE) decode(&in, t, &err);
    else count(&in, t, top, &err);
  }
  free(in.data);
  tt_tokenizer_free(t);
  return err.status ? cli_fail(&err) : 0;
}
