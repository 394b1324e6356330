/* bpe.c: learns byte pairs from a text (Sennrich et al. 2016). The text becomes its different pieces, each with how often it occurs; the pair that occurs most
 * often becomes a token and is replaced in all pieces that hold it, until there are enough tokens or no pair occurs twice. Of equally frequent pairs the one of
 * the older tokens comes first, so a text gives the same tokens everywhere.
 *
 * A pair knows the pieces that may hold it, and waits in a heap under the count it had when it was put there: one whose count has changed goes back. */
#include "tokenizer.h"

#include <stdlib.h>
#include <string.h>

typedef struct { int32_t *ids, n; int64_t count; size_t hash; const uint8_t *text; } piece;
typedef struct { int32_t a, b; int64_t count; int32_t *pieces; int32_t n, room; } pair;
typedef struct { int64_t count; int32_t pair; } waiting;

typedef struct {
  piece *pieces; int32_t n_pieces, pieces_room;
  int32_t *by_text; size_t text_room;              /* hash tables; -1: free */
  pair *pairs; int32_t n_pairs, pairs_room;
  int32_t *by_pair; size_t pair_room;
  waiting *heap; size_t n_heap, heap_room;
  tt_error *err;
} learner;

static bool no_memory(learner *l) { return tt_fail(l->err, TT_NO_MEMORY, "error: no memory to learn byte pairs\n  at a text of %d different words\n  fix: take a shorter text", l->n_pieces), false; }

static bool more_room(void **at, int32_t *room, int32_t n, size_t size) {
  if (n < *room) return true;
  int32_t wanted = *room ? 2 * *room : 16;
  void *larger = realloc(*at, (size_t)wanted * size);
  if (larger) *at = larger, *room = wanted;
  return larger;
}

/* A table of twice as many places, with the hash of each entry from `hash_of`. */
static bool rehash(learner *l, int32_t **table, size_t *room, int32_t n, size_t (*hash_of)(const learner *l, int32_t i)) {
  size_t wanted = *room ? 2 * *room : 1024;
  int32_t *larger = malloc(wanted * sizeof *larger);
  if (!larger) return no_memory(l);
  memset(larger, 0xff, wanted * sizeof *larger);
  for (int32_t i = 0; i < n; i++) {
    size_t k = hash_of(l, i) & (wanted - 1);
    while (larger[k] >= 0) k = (k + 1) & (wanted - 1);
    larger[k] = i;
  }
  free(*table);
  *table = larger, *room = wanted;
  return true;
}

static size_t hash_of_piece(const learner *l, int32_t i) { return l->pieces[i].hash; }
static size_t hash_of(int32_t a, int32_t b) { return tok_hash((const uint8_t *)(const int32_t[]){a, b}, 8); }
static size_t hash_of_pair(const learner *l, int32_t i) { return hash_of(l->pairs[i].a, l->pairs[i].b); }

static bool count_piece(learner *l, const uint8_t *text, size_t n) {
  if (n < 2) return true;
  if (2 * (size_t)l->n_pieces >= l->text_room && !rehash(l, &l->by_text, &l->text_room, l->n_pieces, hash_of_piece)) return false;
  size_t hash = tok_hash(text, n), k = hash & (l->text_room - 1);
  for (int32_t i; (i = l->by_text[k]) >= 0; k = (k + 1) & (l->text_room - 1))
    if (l->pieces[i].hash == hash && l->pieces[i].n == (int32_t)n && !memcmp(l->pieces[i].text, text, n)) return l->pieces[i].count++, true;
  if (!more_room((void **)&l->pieces, &l->pieces_room, l->n_pieces, sizeof *l->pieces)) return no_memory(l);
  piece *p = &l->pieces[l->n_pieces];
  *p = (piece){malloc(n * sizeof *p->ids), (int32_t)n, 1, hash, text};
  if (!p->ids) return no_memory(l);
  for (size_t i = 0; i < n; i++) p->ids[i] = text[i];
  l->by_text[k] = l->n_pieces++;
  return true;
}

/* -- Pairs ------------------------------------------------------------------------------------------------------------------------- */

static bool sooner(const learner *l, const waiting *x, const waiting *y) {
  const pair *p = &l->pairs[x->pair], *q = &l->pairs[y->pair];
  return x->count != y->count ? x->count > y->count : p->a != q->a ? p->a < q->a : p->b < q->b;
}

static bool push(learner *l, int32_t at) {
  if (l->n_heap == l->heap_room) {
    size_t room = l->heap_room ? 2 * l->heap_room : 1024;
    waiting *heap = realloc(l->heap, room * sizeof *heap);
    if (!heap) return no_memory(l);
    l->heap = heap, l->heap_room = room;
  }
  waiting w = {l->pairs[at].count, at};
  size_t i = l->n_heap++;
  for (; i && sooner(l, &w, &l->heap[(i - 1) / 2]); i = (i - 1) / 2) l->heap[i] = l->heap[(i - 1) / 2];
  l->heap[i] = w;
  return true;
}

static waiting pop(learner *l) {
  waiting top = l->heap[0], last = l->heap[--l->n_heap];
  size_t i = 0;
  for (size_t child; (child = 2 * i + 1) < l->n_heap; i = child) {
    if (child + 1 < l->n_heap && sooner(l, &l->heap[child + 1], &l->heap[child])) child++;
    if (!sooner(l, &l->heap[child], &last)) break;
    l->heap[i] = l->heap[child];
  }
  l->heap[i] = last;
  return top;
}

/* The pair occurs `by` times more often (or less), in that piece. */
static bool count_pair(learner *l, int32_t a, int32_t b, int64_t by, int32_t in) {
  if (2 * (size_t)l->n_pairs >= l->pair_room && !rehash(l, &l->by_pair, &l->pair_room, l->n_pairs, hash_of_pair)) return false;
  size_t k = hash_of(a, b) & (l->pair_room - 1);
  int32_t i;
  for (; (i = l->by_pair[k]) >= 0; k = (k + 1) & (l->pair_room - 1))
    if (l->pairs[i].a == a && l->pairs[i].b == b) break;
  if (i < 0) {
    if (!more_room((void **)&l->pairs, &l->pairs_room, l->n_pairs, sizeof *l->pairs)) return no_memory(l);
    i = l->by_pair[k] = l->n_pairs++;
    l->pairs[i] = (pair){a, b, 0, NULL, 0, 0};
  }
  pair *p = &l->pairs[i];
  p->count += by;
  if (by < 0 || (p->n && p->pieces[p->n - 1] == in)) return true;
  if (!more_room((void **)&p->pieces, &p->room, p->n, sizeof *p->pieces)) return no_memory(l);
  p->pieces[p->n++] = in;
  return true;
}

/* In one piece, the pair becomes the token; the counts of its neighbours' pairs follow. */
static bool replace(learner *l, int32_t in, int32_t a, int32_t b, int32_t token) {
  piece *p = &l->pieces[in];
  bool holds = false;
  for (int32_t i = 0; i + 1 < p->n && !holds; i++) holds = p->ids[i] == a && p->ids[i + 1] == b;
  if (!holds) return true;                                     /* it did once */
  for (int32_t i = 0; i + 1 < p->n; i++)
    if (!count_pair(l, p->ids[i], p->ids[i + 1], -p->count, in)) return false;
  int32_t n = 0;
  for (int32_t i = 0; i < p->n; n++)
    if (i + 1 < p->n && p->ids[i] == a && p->ids[i + 1] == b) p->ids[n] = token, i += 2;
    else p->ids[n] = p->ids[i++];
  p->n = n;
  for (int32_t i = 0; i + 1 < n; i++)
    if (!count_pair(l, p->ids[i], p->ids[i + 1], p->count, in)) return false;
  return true;
}

/* The next token, of the pair that occurs most often; *any: there was one. */
static bool learn_one(learner *l, tt_tokenizer *t, bool *any) {
  waiting w = {0};
  for (*any = false; l->n_heap && !*any;) {
    w = pop(l);
    if (l->pairs[w.pair].count == w.count) *any = w.count > 1;
    else if (l->pairs[w.pair].count > 1 && !push(l, w.pair)) return false;
  }
  if (!*any) return true;
  int32_t a = l->pairs[w.pair].a, b = l->pairs[w.pair].b, token = t->n, fresh = l->n_pairs;
  size_t na = t->start[a + 1] - t->start[a], nb = t->start[b + 1] - t->start[b];
  uint8_t *joined = malloc(na + nb);
  if (!joined) return no_memory(l);
  memcpy(joined, t->bytes + t->start[a], na);
  memcpy(joined + na, t->bytes + t->start[b], nb);
  for (int32_t i = 256; i < t->n; i++)                         /* other parts may have made it already */
    if (t->start[i + 1] - t->start[i] == na + nb && !memcmp(t->bytes + t->start[i], joined, na + nb)) token = i;
  bool ok = (token < t->n || tok_add(t, joined, na + nb, l->err)) && tok_add_merge(t, a, b, token, l->err);
  free(joined);
  int32_t n = l->pairs[w.pair].n, *pieces = l->pairs[w.pair].pieces;
  l->pairs[w.pair].pieces = NULL, l->pairs[w.pair].n = l->pairs[w.pair].room = 0;
  for (int32_t i = 0; i < n && ok; i++) ok = replace(l, pieces[i], a, b, token);
  free(pieces);
  for (int32_t i = token < t->n - 1 ? 0 : fresh; i < l->n_pairs && ok; i++)
    if (i >= fresh || l->pairs[i].a == token || l->pairs[i].b == token) ok = push(l, i);
  return ok;
}

tt_tokenizer *tok_train_bpe(const uint8_t *text, size_t bytes, int32_t size, tt_error *err) {
  learner l = {.err = err};
  tt_tokenizer *t = tok_new(err);
  bool ok = t, any = true;
  for (int c = 0; c < 256 && ok; c++) ok = tok_add(t, &(uint8_t){(uint8_t)c}, 1, err);
  for (size_t i = 0, n; i < bytes && ok; i += n) {
    n = tok_piece(text + i, bytes - i);
    ok = count_piece(&l, text + i, n);
  }
  for (int32_t p = 0; p < l.n_pieces && ok; p++)
    for (int32_t i = 0; i + 1 < l.pieces[p].n && ok; i++) ok = count_pair(&l, l.pieces[p].ids[i], l.pieces[p].ids[i + 1], l.pieces[p].count, p);
  for (int32_t i = 0; i < l.n_pairs && ok; i++) ok = push(&l, i);
  while (ok && any && t->n < size) ok = learn_one(&l, t, &any);
  for (int32_t i = 0; i < l.n_pieces; i++) free(l.pieces[i].ids);
  for (int32_t i = 0; i < l.n_pairs; i++) free(l.pairs[i].pieces);
  free(l.pieces), free(l.by_text), free(l.pairs), free(l.by_pair), free(l.heap);
  if (ok && tok_index(t, err)) return t;
  tt_tokenizer_free(t);
  return NULL;
}
