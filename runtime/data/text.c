/* text.c: texts to train language models on. A text is cut into windows of `context` tokens; x is a window, y the same moved on by one, so that each position
 * has the token that follows as its label. Training goes through the windows in the loader's counter-based order, from a place in the first window that each
 * epoch draws anew, so that every token is seen once an epoch and between ever different neighbours; a test takes them as they stand. Which tokens are
 * hidden from a masked language model is drawn by place in the same way. So batches follow from seed, epoch and number alone.
 *
 *     a file        its end (a tenth) is to validate on
 *     a folder      train.txt and val.txt in it
 *     sentences:N   needs no file: N sentences of a small grammar, of which any can be drawn alone */
#define _GNU_SOURCE
#include "../runtime.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tokenizer.h"

enum { STREAM_OFFSET = 0x6f666673, STREAM_MASK = 0x6d61736b };

static uint32_t word(uint64_t seed, int64_t epoch, uint32_t stream, uint64_t i, uint32_t out[4]) {
  tt_philox(10, (uint32_t[4]){(uint32_t)i, (uint32_t)(i >> 32), (uint32_t)epoch, stream}, (uint32_t[2]){(uint32_t)seed, (uint32_t)(seed >> 32)}, out);
  return out[0];
}

/* Devlin et al. 2018: of the tokens that are to be guessed, 80% are hidden, 10% are another token, and 10% stay. */
static void mask(const tt_dataset *d, uint64_t seed, int64_t epoch, int64_t place, int32_t *x, int32_t *y) {
  for (int64_t t = 0; t < d->context; t++) {
    uint32_t r[4];
    double guessed = word(seed, epoch, STREAM_MASK, (uint64_t)(place * d->context + t), r) / 0x1p32, how = r[1] / 0x1p32;
    y[t] = guessed < d->masked ? x[t] : -1;
    if (y[t] < 0 || how >= 0.9) continue;
    x[t] = how < 0.8 ? (int32_t)d->n_classes - 1 : (int32_t)(r[2] % (uint32_t)(d->n_classes - 1));
  }
}

void rt_text_window(const tt_dataset *d, uint64_t seed, bool shuffle, int64_t epoch, int64_t place, int64_t sample, int32_t *x, int32_t *y) {
  uint32_t r[4];
  int64_t first = sample * d->context + (shuffle ? word(seed, epoch, STREAM_OFFSET, 0, r) % (uint32_t)d->context : 0);
  memcpy(x, d->tokens + first, (size_t)d->context * sizeof *x);
  if (d->masked > 0) mask(d, seed, epoch, place, x, y);
  else memcpy(y, d->tokens + first + 1, (size_t)d->context * sizeof *y);
}

/* -- A text that needs no file --------------------------------------------------------------------------------------------------- */

/* One of the words between bars. */
static const char *pick(const char *words, uint32_t r, int *length) {
  uint32_t n = 1;
  for (const char *c = words; *c; c++) n += *c == '|';
  for (r %= n; r; words++) r -= *words == '|';
  *length = (int)strcspn(words, "|");
  return words;
}

/* Sentence i, at most 160 bytes: "the old baker sees a red boat near the river.\n" */
static size_t sentence(uint64_t i, char *to) {
  static const char who[] = "baker|sailor|teacher|child|farmer|painter|doctor|singer|driver|queen|hunter|gardener", thing[] = "boat|apple|letter|lamp|horse|garden|bridge|window|hat|song|stone|clock|book|tree|door|cup";
  static const char like[] = "old|young|tall|quiet|red|blue|small|heavy|bright|strange|happy|broken", does[] = "sees|takes|finds|paints|wants|sells|loves|hides|carries|brings", where[] = "near the river|in the town|by the sea|under the hill|behind the house|at the market|on the road";
  static const char when[] = "today|at night|in winter|every morning|after the rain|before dinner", *const forms[] = {"the L W D a T.", "the W D the L T P.", "N, the W D a L T.", "the L W D the T P N.", "a W and a W D the T.", "does the W want a L T? yes, the W D the T."};
  uint32_t r[4];
  size_t n = 0;
  uint64_t next = 0;
#define DRAW (next % 4 == 0 ? (tt_philox(10, (uint32_t[4]){(uint32_t)i, (uint32_t)(i >> 32), (uint32_t)(next / 4), 0x73656e74}, (uint32_t[2]){0, 0}, r), r[next++ % 4]) : r[next++ % 4])
  for (const char *c = forms[DRAW % 6]; *c; c++) {
    const char *words = *c == 'L' ? like : *c == 'W' ? who : *c == 'D' ? does : *c == 'T' ? thing : *c == 'P' ? where : *c == 'N' ? when : NULL;
    if (!words) {
      to[n++] = *c;
      continue;
    }
    int length;
    const char *one = pick(words, DRAW, &length);
    memcpy(to + n, one, (size_t)length);
    n += (size_t)length;
  }
#undef DRAW
  to[n++] = '\n';
  return n;
}

static uint8_t *sentences(const char *count, size_t *bytes, tt_error *err) {
  char *end;
  errno = 0;
  long long n = strtoll(count, &end, 10);
  if (!*count || *end || errno || n < 1 || n > 10000000) return tt_fail(err, TT_INVALID, "error: \"%.100s\" is no number of sentences\n  at data set sentences:%.100s\n  fix: write sentences:COUNT with 1 to 10000000, like sentences:20000", count, count), NULL;
  uint8_t *text = malloc((size_t)n * 160);
  if (!text) return tt_fail(err, TT_NO_MEMORY, "error: no memory for %lld sentences\n  at data set sentences:%lld\n  fix: ask for fewer", n, n), NULL;
  *bytes = 0;
  for (long long i = 0; i < n; i++) *bytes += sentence((uint64_t)i, (char *)text + *bytes);
  return text;
}

/* -- Opening --------------------------------------------------------------------------------------------------------------------- */

typedef struct { uint8_t *data; size_t bytes; } text;

static bool read_text(const char *path, text *t, tt_error *err) {
  rt_file f;
  if (rt_map_file(path, &f, err) != TT_OK) return false;
  t->bytes = f.bytes;
  if ((t->data = malloc(f.bytes + 1))) memcpy(t->data, f.data, f.bytes);
  rt_unmap_file(&f);
  return t->data || (tt_fail(err, TT_NO_MEMORY, "error: no memory for a text of %zu bytes\n  at %s\n  fix: use a smaller one", t->bytes, path), false);
}

/* all: both parts one behind the other; cut: bytes of the first. */
static bool read_parts(const char *what, text *all, size_t *cut, tt_error *err) {
  struct stat s;
  if (!strncmp(what, "sentences:", 10)) {
    if (!(all->data = sentences(what + 10, &all->bytes, err))) return false;
  } else if (!stat(what, &s) && S_ISDIR(s.st_mode)) {
    char path[RT_PATH];
    text test = {0};
    if (rt_path(path, what, "train.txt", err) != TT_OK || !read_text(path, all, err)) return false;
    uint8_t *both = rt_path(path, what, "val.txt", err) == TT_OK && read_text(path, &test, err) ? realloc(all->data, all->bytes + test.bytes + 1) : NULL;
    if (!both) return free(test.data), tt_fail(err, TT_NO_MEMORY, "error: no memory for a text\n  at %s\n  fix: use a smaller one", path), false;
    memcpy(both + all->bytes, test.data, test.bytes);
    free(test.data);
    *all = (text){both, all->bytes + test.bytes}, *cut = all->bytes - test.bytes;
    return true;
  } else if (!read_text(what, all, err)) return false;
  *cut = all->bytes - all->bytes / 10;
  while (*cut < all->bytes && (all->data[*cut] & 0xc0) == 0x80) ++*cut;          /* no character is cut */
  return true;
}

static tt_dataset *part_of(const char *what, const tt_text_options *o, const tt_tokenizer *t, const uint8_t *data, size_t bytes, bool train, tt_error *err) {
  tt_dataset *d = calloc(1, sizeof *d);
  int32_t *ids;
  int64_t n, context = o->context ? o->context : 256;
  if (!d) tt_fail(err, TT_NO_MEMORY, "error: no memory for a data set\n  at %s\n  fix: free memory", what);
  if (!d || tt_tokenizer_encode(t, data, bytes, &ids, &n, err) != TT_OK) return free(d), NULL;
  *d = (tt_dataset){.name = "text", .n = train ? (n - context) / context : (n - 1) / context, .n_classes = t->n + (o->masked > 0), .tokens = ids, .n_tokens = n, .context = context, .masked = o->masked};
  if (d->n >= 1) return d;
  tt_fail(err, TT_INVALID, "error: the text to %s is too short: %lld tokens, and windows take %lld\n  at %s\n  fix: give a longer text, or a smaller context", train ? "train on" : "validate on", (long long)n, (long long)(train ? 2 * context : context + 1), what);
  tt_dataset_free(d);
  return NULL;
}

tt_status tt_text_open(const char *what, const tt_text_options *options, tt_tokenizer **tokenizer, tt_dataset **train, tt_dataset **test, tt_error *err) {
  static const tt_text_options none;
  const tt_text_options *o = options ? options : &none;
  tt_error own = {0};
  text all = {0};
  size_t cut;
  if (!err) err = &own;
  bool made = !*tokenizer;
  *train = *test = NULL;
  if (o->context < 0 || o->context > 1 << 20 || !(o->masked >= 0 && o->masked < 1))
    return tt_fail(err, TT_INVALID, "error: windows of %lld tokens, of which a share of %g is masked\n  at text %s\n  fix: take a context of 1 to %d and a share from 0 to below 1", (long long)o->context, o->masked, what, 1 << 20);
  if (read_parts(what, &all, &cut, err)) {
    /* Characters are those of the whole text, so that its end can be read; byte pairs are learned from what is trained on. */
    bool characters = !o->tokens || !strcmp(o->tokens, "char");
    if (made) *tokenizer = tt_tokenizer_train(all.data, characters ? all.bytes : cut, o->tokens, err);
    if (*tokenizer && (*train = part_of(what, o, *tokenizer, all.data, cut, true, err))) *test = part_of(what, o, *tokenizer, all.data + cut, all.bytes - cut, false, err);
  }
  free(all.data);
  if (*test) return TT_OK;
  tt_dataset_free(*train);
  *train = NULL;
  if (made) tt_tokenizer_free(*tokenizer), *tokenizer = NULL;
  return err->status;
}
