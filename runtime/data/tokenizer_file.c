/* tokenizer_file.c: a tokenizer as GPT-2's two files. vocab.json says which number a token has, merges.txt which pairs are joined, one a line, the first
 * first. In both a byte stands as a printable character, its own where it has one, else one from U+0100 on:
 *
 *     {"!": 0, ..., "\u0120the": 262, ...}        U+0120 is the blank
 *     #version: 0.2
 *     \u0120 t
 *
 * A tokenizer without merges is one of characters. All of a file is checked before it is believed. */
#include "tokenizer.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static bool stands_for_itself(int c) { return (c >= '!' && c <= '~') || (c >= 0xa1 && c <= 0xac) || (c >= 0xae && c <= 0xff); }

/* of_byte[c]: the code point of byte c, below 512; byte_of: its inverse, -1: none. */
typedef struct { uint32_t of_byte[256]; int byte_of[512]; } alphabet;
static void make_alphabet(alphabet *a) {
  uint32_t next = 256;
  memset(a->byte_of, 0xff, sizeof a->byte_of);
  for (int c = 0; c < 256; c++) {
    a->of_byte[c] = stands_for_itself(c) ? (uint32_t)c : next++;
    a->byte_of[a->of_byte[c]] = c;
  }
}

/* A token as it stands in the files; NULL: no memory. */
static char *printed(const alphabet *a, const tt_tokenizer *t, int32_t id) {
  size_t n, used = 0;
  const uint8_t *bytes = (const uint8_t *)tt_tokenizer_token(t, id, &n);
  char *text = malloc(2 * n + 1);
  for (size_t i = 0; i < n && text; i++) {
    uint32_t c = a->of_byte[bytes[i]];
    if (c >= 0x80) text[used++] = (char)(0xc0 | c >> 6), text[used++] = (char)(0x80 | (c & 0x3f));
    else text[used++] = (char)c;
  }
  if (text) text[used] = 0;
  return text;
}

/* Its bytes, into `to`, which has room for n; -1: a character that is no byte. */
static long bytes_of(const alphabet *a, const char *text, size_t n, uint8_t *to) {
  long used = 0;
  uint32_t c;
  for (size_t i = 0; i < n; used++) {
    i += tok_character((const uint8_t *)text + i, n - i, &c);
    if (c >= 512 || a->byte_of[c] < 0) return -1;
    to[used] = (uint8_t)a->byte_of[c];
  }
  return used;
}

/* -- Reading --------------------------------------------------------------------------------------------------------------------- */

static bool wrong(tt_error *err, const char *name, const char *file, const char *what, const char *token, size_t n) {
  return tt_fail(err, TT_FORMAT, "error: %s: \"%.*s\"\n  at %s/%s\n  fix: get the tokenizer's files again", what, (int)(n < 60 ? n : 60), token, name, file), false;
}

static bool read_vocab(tt_tokenizer *t, const alphabet *a, const char *name, const char *text, size_t bytes, tt_error *err) {
  json_error_t where;
  json_t *vocab = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &where), *id;
  if (!json_is_object(vocab) || json_object_size(vocab) < 1) {
    tt_fail(err, TT_FORMAT, "error: expected an object of tokens and numbers%s%.200s\n  at %s/vocab.json, line %d\n  fix: get the tokenizer's files again", vocab ? "" : ": ", vocab ? "" : where.text, name, vocab ? 1 : where.line);
    json_decref(vocab);
    return false;
  }
  size_t n = json_object_size(vocab);
  const char **names = calloc(n, sizeof *names), *key;
  uint8_t *room = malloc(bytes + 1);
  bool ok = names && room;
  if (!ok) tt_fail(err, TT_NO_MEMORY, "error: no memory for %zu tokens\n  at %s/vocab.json\n  fix: use a machine with more memory", n, name);
  if (ok) json_object_foreach(vocab, key, id) {
    json_int_t v = json_is_integer(id) ? json_integer_value(id) : -1;
    if (v < 0 || v >= (json_int_t)n || names[v]) {
      ok = wrong(err, name, "vocab.json", "tokens are numbered from 0 on, each once; not this one", key, strlen(key));
      break;
    }
    names[v] = key;
  }
  for (size_t i = 0; i < n && ok; i++) {
    long length = bytes_of(a, names[i], strlen(names[i]), room);
    if (length < 1) ok = wrong(err, name, "vocab.json", "a token is characters that stand for bytes; not this one", names[i], strlen(names[i]));
    else ok = tok_add(t, room, (size_t)length, err);
  }
  free(names), free(room);
  json_decref(vocab);
  return ok && tok_index(t, err);
}

static bool read_merges(tt_tokenizer *t, const alphabet *a, const char *name, const char *text, size_t bytes, tt_error *err) {
  uint8_t *room = malloc(bytes + 1);
  bool ok = room || (tt_fail(err, TT_NO_MEMORY, "error: no memory for merges\n  at %s/merges.txt\n  fix: use a machine with more memory", name), false);
  for (size_t i = 0, n; i < bytes && ok; i += n + 1) {
    const char *line = text + i, *end = memchr(line, '\n', bytes - i);
    size_t length = n = end ? (size_t)(end - line) : bytes - i;
    if (length && line[length - 1] == '\r') length--;
    if (!length || (i == 0 && length >= 8 && !memcmp(line, "#version", 8))) continue;
    const char *blank = memchr(line, ' ', length);
    size_t left = blank ? (size_t)(blank - line) : 0;
    long na = blank ? bytes_of(a, line, left, room) : -1, nb = na > 0 ? bytes_of(a, blank + 1, length - left - 1, room + na) : -1;
    int32_t x = nb > 0 ? tok_find(t, room, (size_t)na) : -1, y = nb > 0 ? tok_find(t, room + na, (size_t)nb) : -1, both = nb > 0 ? tok_find(t, room, (size_t)(na + nb)) : -1;
    if (x < 0 || y < 0 || both < 0) ok = wrong(err, name, "merges.txt", "a line is two tokens that make a third, with a blank between them; not this one", line, length);
    else ok = tok_add_merge(t, x, y, both, err);
  }
  free(room);
  return ok && tok_index(t, err);
}

tt_tokenizer *tt_tokenizer_parse(const char *name, const void *vocab, size_t vocab_bytes, const void *merges, size_t merges_bytes, tt_error *err) {
  tt_error own = {0};
  if (!err) err = &own;
  alphabet a;
  make_alphabet(&a);
  tt_tokenizer *t = tok_new(err);
  if (t && read_vocab(t, &a, name, vocab, vocab_bytes, err) && read_merges(t, &a, name, merges, merges_bytes, err)) return t;
  tt_tokenizer_free(t);
  return NULL;
}

tt_tokenizer *tt_tokenizer_load(const char *dir, tt_error *err) {
  char path[RT_PATH];
  rt_file vocab = {0}, merges = {0};
  tt_tokenizer *t = NULL;
  if (rt_path(path, dir, "vocab.json", err) == TT_OK && rt_map_file(path, &vocab, err) == TT_OK) {
    if (rt_path(path, dir, "merges.txt", err) == TT_OK && rt_map_file(path, &merges, err) == TT_OK) t = tt_tokenizer_parse(dir, vocab.data, vocab.bytes, merges.data, merges.bytes, err);
  }
  rt_unmap_file(&vocab), rt_unmap_file(&merges);
  return t;
}

/* -- Writing --------------------------------------------------------------------------------------------------------------------- */

tt_status tt_tokenizer_save(const tt_tokenizer *t, const char *dir, tt_error *err) {
  tt_error own = {0};
  if (!err) err = &own;
  tt_status status = TT_OK;
  char path[RT_PATH], *merges = NULL, *vocab = NULL;
  size_t bytes = 0;
  alphabet a;
  make_alphabet(&a);
  if (mkdir(dir, 0777) && errno != EEXIST) return tt_fail(err, TT_IO, "error: the folder cannot be made: %s\n  at %s\n  fix: give a path in a folder that may be written", strerror(errno), dir);
  json_t *tokens = json_object();
  FILE *f = open_memstream(&merges, &bytes);
  bool ok = tokens && f && fprintf(f, "#version: 0.2\n") > 0;
  for (int32_t i = 0; i < t->n && ok; i++) {
    char *text = printed(&a, t, i);
    ok = text && json_object_set_new_nocheck(tokens, text, json_integer(i)) == 0;
    free(text);
  }
  for (int32_t i = 0; i < t->n_merges && ok; i++) {
    char *left = printed(&a, t, t->merges[i].a), *right = printed(&a, t, t->merges[i].b);
    ok = left && right && fprintf(f, "%s %s\n", left, right) > 0;
    free(left), free(right);
  }
  if (f && fclose(f)) ok = false;
  if (!ok || !(vocab = json_dumps(tokens, JSON_ENSURE_ASCII))) status = tt_fail(err, TT_NO_MEMORY, "error: no memory for a tokenizer's files\n  at %s\n  fix: free memory", dir);
  json_decref(tokens);
  if (vocab) {
    status = rt_path(path, dir, "vocab.json", err);
    if (status == TT_OK) status = rt_write_file(path, vocab, strlen(vocab), err);
    if (status == TT_OK) status = rt_path(path, dir, "merges.txt", err);
    if (status == TT_OK) status = rt_write_file(path, merges, bytes, err);
  }
  free(vocab), free(merges);
  return status;
}
