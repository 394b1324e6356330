/* tokenizer.c: texts as numbers and back. A token is some bytes; a text is cut into pieces, and each piece starts as single bytes, which are joined two by two,
 * the pair with the lowest rank first, as long as the merges know one (byte-pair encoding: Sennrich et al. 2016, over bytes: Radford et al. 2019). Without
 * merges the pieces are characters: the bytes of one UTF-8 sequence, or one byte that begins none.
 *
 * A pair is found in a hash table, the next pair to join in a heap, so a piece of n bytes takes n log n steps whatever it holds; bytes decode to what they
 * were, valid UTF-8 or not. Files are GPT-2's: vocab.json and merges.txt, where each byte stands for a printable character (tokenizer_file.c). */
#include "tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* -- The tables ------------------------------------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t h) {
  h = (h ^ (h >> 32)) * 0x9e3779b97f4a7c15u;
  return h ^ (h >> 29);
}

uint64_t tok_hash(const uint8_t *bytes, size_t n) {
  uint64_t h = n;
  for (size_t i = 0; i < n; i++) h = (h ^ bytes[i]) * 0x100000001b3u;
  return mix(h);
}

static size_t room_for(size_t n) {
  size_t room = 64;
  while (room < 2 * n) room *= 2;
  return room;
}

int32_t tok_find(const tt_tokenizer *t, const uint8_t *bytes, size_t n) {
  for (size_t i = tok_hash(bytes, n) & (t->token_room - 1);; i = (i + 1) & (t->token_room - 1)) {
    int32_t id = t->by_bytes[i];
    if (id < 0) return -1;
    if (t->start[id + 1] - t->start[id] == n && !memcmp(t->bytes + t->start[id], bytes, n)) return id;
  }
}

static const tok_merge *merge_of(const tt_tokenizer *t, int32_t a, int32_t b) {
  uint64_t pair = (uint64_t)(uint32_t)a << 32 | (uint32_t)b;
  for (size_t i = mix(pair) & (t->merge_room - 1); t->n_merges; i = (i + 1) & (t->merge_room - 1)) {
    int32_t k = t->by_pair[i];
    if (k < 0) return NULL;
    if (t->merges[k].a == a && t->merges[k].b == b) return &t->merges[k];
  }
  return NULL;
}

static bool no_memory(tt_error *err) {
  tt_fail(err, TT_NO_MEMORY, "error: no memory for a tokenizer\n  at its tables\n  fix: use a machine with more memory");
  return false;
}

tt_tokenizer *tok_new(tt_error *err) {
  tt_tokenizer *t = calloc(1, sizeof *t);
  if (t && (t->start = calloc(1, sizeof *t->start))) return t;
  free(t);
  no_memory(err);
  return NULL;
}

/* Makes *at hold one more than n of that size: rooms double. */
static bool more_room(void **at, size_t n, size_t size) {
  if (n & (n - 1) && n) return true;
  void *larger = realloc(*at, (n ? 2 * n : 1) * size);
  if (larger) *at = larger;
  return larger;
}

bool tok_add(tt_tokenizer *t, const uint8_t *bytes, size_t n, tt_error *err) {
  size_t used = t->start[t->n], room = 64;
  while (room < used) room *= 2;
  uint32_t *start = realloc(t->start, ((size_t)t->n + 2) * sizeof *start);
  if (start) t->start = start;
  while (!t->bytes || room < used + n) {
    while (room < used + n) room *= 2;
    uint8_t *larger = realloc(t->bytes, room);
    if (!larger) return no_memory(err);
    t->bytes = larger;
  }
  if (!start || used + n > UINT32_MAX / 2) return no_memory(err);
  memcpy(t->bytes + used, bytes, n);
  t->start[++t->n] = (uint32_t)(used + n);
  return true;
}

bool tok_add_merge(tt_tokenizer *t, int32_t a, int32_t b, int32_t result, tt_error *err) {
  if (!more_room((void **)&t->merges, (size_t)t->n_merges, sizeof *t->merges)) return no_memory(err);
  t->merges[t->n_merges] = (tok_merge){a, b, result, t->n_merges};
  t->n_merges++;
  return true;
}

bool tok_index(tt_tokenizer *t, tt_error *err) {
  t->token_room = room_for((size_t)t->n), t->merge_room = room_for((size_t)t->n_merges);
  free(t->by_bytes), free(t->by_pair);
  t->by_bytes = malloc(t->token_room * sizeof *t->by_bytes), t->by_pair = malloc(t->merge_room * sizeof *t->by_pair);
  if (!t->by_bytes || !t->by_pair) return no_memory(err);
  memset(t->by_bytes, 0xff, t->token_room * sizeof *t->by_bytes);
  memset(t->by_pair, 0xff, t->merge_room * sizeof *t->by_pair);
  for (int32_t id = 0; id < t->n; id++) {
    const uint8_t *bytes = t->bytes + t->start[id];
    size_t n = t->start[id + 1] - t->start[id];
    if (tok_find(t, bytes, n) >= 0) return tt_fail(err, TT_FORMAT, "error: two tokens are the same bytes: \"%.*s\"\n  at token %d\n  fix: get the vocabulary again", (int)(n < 100 ? n : 100), bytes, id), false;
    size_t i = tok_hash(bytes, n) & (t->token_room - 1);
    while (t->by_bytes[i] >= 0) i = (i + 1) & (t->token_room - 1);
    t->by_bytes[i] = id;
  }
  for (int32_t k = 0; k < t->n_merges; k++) {
    const tok_merge *m = &t->merges[k];
    if (merge_of(t, m->a, m->b)) return tt_fail(err, TT_FORMAT, "error: a pair of tokens is merged twice\n  at merge %d\n  fix: get the merges again", k), false;
    size_t i = mix((uint64_t)(uint32_t)m->a << 32 | (uint32_t)m->b) & (t->merge_room - 1);
    while (t->by_pair[i] >= 0) i = (i + 1) & (t->merge_room - 1);
    t->by_pair[i] = k;
  }
  for (int c = 0; c < 256; c++) t->of_byte[c] = tok_find(t, &(uint8_t){(uint8_t)c}, 1);
  return true;
}

void tt_tokenizer_free(tt_tokenizer *t) {
  if (!t) return;
  free(t->bytes), free(t->start), free(t->merges), free(t->by_bytes), free(t->by_pair);
  free(t);
}

int64_t tt_tokenizer_size(const tt_tokenizer *t) { return t->n; }

const char *tt_tokenizer_token(const tt_tokenizer *t, int64_t id, size_t *bytes) {
  *bytes = id >= 0 && id < t->n ? t->start[id + 1] - t->start[id] : 0;
  return *bytes ? (const char *)t->bytes + t->start[id] : "";
}

/* -- Making one of the characters of a text -------------------------------------------------------------------------------------- */

static size_t utf8(uint32_t c, uint8_t to[4]) {
  if (c < 0x80) return to[0] = (uint8_t)c, 1;
  size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
  for (size_t i = n; i-- > 1; c >>= 6) to[i] = (uint8_t)(0x80 | (c & 0x3f));
  return to[0] = (uint8_t)(0xf00u >> n | c), n;
}

/* In the order of code points; behind them bytes that are no character. */
tt_tokenizer *tok_train_characters(const uint8_t *text, size_t bytes, tt_error *err) {
  enum { CODES = 0x110000 };
  tt_tokenizer *t = tok_new(err);
  uint8_t *seen = calloc(CODES / 8, 1), character[4];
  bool stray[256] = {0}, ok = t && (seen || no_memory(err));
  for (size_t i = 0, n; i < bytes && ok; i += n) {
    uint32_t code;
    n = tok_character(text + i, bytes - i, &code);
    if (n == 1 && text[i] >= 0x80) stray[text[i]] = true;
    else seen[code / 8] |= (uint8_t)(1 << code % 8);
  }
  for (uint32_t c = 0; c < CODES && ok; c++)
    if (!seen[c / 8]) c |= 7;
    else if (seen[c / 8] >> c % 8 & 1) ok = tok_add(t, character, utf8(c, character), err);
  for (int c = 0x80; c < 256 && ok; c++)
    if (stray[c]) ok = tok_add(t, &(uint8_t){(uint8_t)c}, 1, err);
  free(seen);
  if (ok && tok_index(t, err)) return t;
  tt_tokenizer_free(t);
  return NULL;
}

tt_tokenizer *tt_tokenizer_train(const void *text, size_t bytes, const char *tokens, tt_error *err) {
  tt_error own = {0};
  if (!err) err = &own;
  if (bytes >= INT32_MAX / 2) return tt_fail(err, TT_INVALID, "error: a text of %zu bytes is too long to make tokens of\n  at tt_tokenizer_train\n  fix: give a part of it", bytes), NULL;
  if (!tokens || !strcmp(tokens, "char")) return tok_train_characters(text, bytes, err);
  char *end = NULL;
  long size = !strncmp(tokens, "bpe:", 4) ? strtol(tokens + 4, &end, 10) : 0;
  if (end && !*end && size >= 256 && size <= 1 << 20) return tok_train_bpe(text, bytes, (int32_t)size, err);
  return tt_fail(err, TT_INVALID, "error: there are no tokens \"%.100s\"\n  at tt_tokenizer_train\n  fix: use char, or bpe:N with N from 256 to %d", tokens, 1 << 20), NULL;
}

/* -- Text to numbers ---------------------------------------------------------------------------------------------------------------- */

/* A piece while it is joined: parts in a list, and the pairs that could be joined in a heap, lowest rank first, then from the left. */
typedef struct { int32_t id, before, after; } part;
typedef struct { int32_t rank, at, a, b; } join;
typedef struct { part *parts; join *heap; size_t room; int32_t *ids; int64_t n, ids_room; tt_error *err; } encoder;

static bool lower(const join *a, const join *b) { return a->rank != b->rank ? a->rank < b->rank : a->at < b->at; }

static void push(join *heap, size_t *n, join j) {
  size_t i = (*n)++;
  for (; i && lower(&j, &heap[(i - 1) / 2]); i = (i - 1) / 2) heap[i] = heap[(i - 1) / 2];
  heap[i] = j;
}

static join pop(join *heap, size_t *n) {
  join top = heap[0], last = heap[--*n];
  size_t i = 0;
  for (size_t child; (child = 2 * i + 1) < *n; i = child) {
    if (child + 1 < *n && lower(&heap[child + 1], &heap[child])) child++;
    if (!lower(&heap[child], &last)) break;
    heap[i] = heap[child];
  }
  heap[i] = last;
  return top;
}

static bool give(encoder *e, int32_t id) {
  if (e->n == e->ids_room) {
    int64_t room = e->ids_room ? 2 * e->ids_room : 1024;
    int32_t *ids = realloc(e->ids, (size_t)room * sizeof *ids);
    if (!ids) return no_memory(e->err);
    e->ids = ids, e->ids_room = room;
  }
  e->ids[e->n++] = id;
  return true;
}

static bool unknown(encoder *e, const uint8_t *bytes, size_t n, size_t at) {
  tt_fail(e->err, TT_INVALID, "error: the vocabulary has no token for \"%.*s\" (0x%02x)\n  at byte %zu of the text\n  fix: use a tokenizer made of this text, or one with all bytes (bpe)", (int)n, bytes, bytes[0], at);
  return false;
}

static void consider(const tt_tokenizer *t, const encoder *e, size_t *n, int32_t at) {
  int32_t next = at >= 0 ? e->parts[at].after : -1;
  if (next < 0) return;
  const tok_merge *m = merge_of(t, e->parts[at].id, e->parts[next].id);
  if (m) push(e->heap, n, (join){m->rank, at, m->a, m->b});
}

static bool encode_piece(const tt_tokenizer *t, encoder *e, const uint8_t *bytes, size_t n, size_t at) {
  if (n > e->room) {
    size_t room = n < 256 ? 256 : 2 * n;
    part *parts = realloc(e->parts, room * sizeof *parts);
    if (parts) e->parts = parts;
    join *heap = parts ? realloc(e->heap, 3 * room * sizeof *heap) : NULL;        /* each of at most n-1 joins gives two new pairs */
    if (!heap) return no_memory(e->err);
    e->heap = heap, e->room = room;
  }
  size_t n_heap = 0;
  for (size_t i = 0; i < n; i++) {
    e->parts[i] = (part){t->of_byte[bytes[i]], (int32_t)i - 1, i + 1 < n ? (int32_t)i + 1 : -1};
    if (e->parts[i].id < 0) return unknown(e, bytes + i, 1, at + i);
  }
  for (size_t i = 0; i + 1 < n; i++) consider(t, e, &n_heap, (int32_t)i);
  while (n_heap) {
    join j = pop(e->heap, &n_heap);
    part *p = &e->parts[j.at];
    if (p->id != j.a || p->after < 0 || e->parts[p->after].id != j.b) continue;        /* one of the two has been joined with another meanwhile */
    part *gone = &e->parts[p->after];
    p->id = t->merges[merge_of(t, j.a, j.b)->rank].result;
    gone->id = -1;
    p->after = gone->after;
    if (p->after >= 0) e->parts[p->after].before = j.at;
    consider(t, e, &n_heap, p->before);
    consider(t, e, &n_heap, j.at);
  }
  for (int32_t i = n ? 0 : -1; i >= 0; i = e->parts[i].after)
    if (!give(e, e->parts[i].id)) return false;
  return true;
}

tt_status tt_tokenizer_encode(const tt_tokenizer *t, const void *text, size_t bytes, int32_t **ids, int64_t *n, tt_error *err) {
  tt_error own = {0};
  encoder e = {.err = err ? err : &own};
  const uint8_t *s = text;
  bool ok = bytes < INT32_MAX / 2 || (tt_fail(e.err, TT_INVALID, "error: a text of %zu bytes is too long to encode at once\n  at tt_tokenizer_encode\n  fix: encode it in parts", bytes), false);
  *ids = NULL, *n = 0;
  for (size_t i = 0, length; i < bytes && ok; i += length) {
    if (t->n_merges) {
      length = tok_piece(s + i, bytes - i);
      ok = encode_piece(t, &e, s + i, length, i);
      continue;
    }
    uint32_t code;
    length = tok_character(s + i, bytes - i, &code);
    int32_t id = tok_find(t, s + i, length);
    if (id < 0) id = t->of_byte[s[i]], length = 1;
    ok = id >= 0 ? give(&e, id) : unknown(&e, s + i, length, i);
  }
  if (ok && !e.ids) ok = (e.ids = malloc(sizeof *e.ids)) || no_memory(e.err);
  free(e.parts), free(e.heap);
  if (!ok) return free(e.ids), e.err->status;
  *ids = e.ids, *n = e.n;
  return TT_OK;
}
