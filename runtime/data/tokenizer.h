/* tokenizer.h: what the files of a tokenizer share: its tables, and how a text is cut. */
#ifndef TT_TOKENIZER_H
#define TT_TOKENIZER_H

#include "../runtime.h"

typedef struct { int32_t a, b, result, rank; } tok_merge;       /* rank: its place in the list */

struct tt_tokenizer {
  int32_t n;
  uint8_t *bytes; uint32_t *start;           /* token i: bytes[start[i]] .. bytes[start[i+1]-1] */
  tok_merge *merges; int32_t n_merges;
  int32_t *by_bytes, *by_pair;               /* hash tables with open addressing; -1: free */
  size_t token_room, merge_room;
  int32_t of_byte[256];                      /* -1: none */
};

/* tokenizer.c */
tt_tokenizer *tok_new(tt_error *err);
bool tok_add(tt_tokenizer *t, const uint8_t *bytes, size_t n, tt_error *err);
bool tok_add_merge(tt_tokenizer *t, int32_t a, int32_t b, int32_t result, tt_error *err);
bool tok_index(tt_tokenizer *t, tt_error *err);          /* when all have been added */
int32_t tok_find(const tt_tokenizer *t, const uint8_t *bytes, size_t n);       /* -1: no such token */
uint64_t tok_hash(const uint8_t *bytes, size_t n);
tt_tokenizer *tok_train_characters(const uint8_t *text, size_t bytes, tt_error *err);

/* split.c: the bytes of the first character, and its code point; a byte that begins none is one by itself, with the code 0xfffd; n > 0. */
size_t tok_character(const uint8_t *text, size_t n, uint32_t *code);
/* The bytes of the first piece, as GPT-2 cuts texts: words with the blank before them, numbers, other marks, blanks. */
size_t tok_piece(const uint8_t *text, size_t n);

/* bpe.c */
tt_tokenizer *tok_train_bpe(const uint8_t *text, size_t bytes, int32_t size, tt_error *err);

#endif
