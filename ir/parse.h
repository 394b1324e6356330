/* parse.h: what parse_token.c gives parse.c: the text as tokens, names and numbers, and mistakes with their place in it.
 *
 * Every function of a parser that returns bool records the first mistake in p->err and returns false; callers pass that on. */
#ifndef TT_PARSE_H
#define TT_PARSE_H

#include "eval.h"
#include "text.h"

typedef struct { size_t arguments, results; ir_ref begin, end; uint32_t region; } kernel_text;

typedef struct {
  const char *text, *file;
  size_t n, at;
  tt_error *err;
  ir_graph *g;
  uint64_t *keys; ir_ref *values; uint32_t n_keys, cap_keys;     /* names of rows: see key_of */
  size_t *defined; uint32_t cap_defined;                         /* of each row, where its name stands */
  kernel_text *kernels; uint32_t n_kernels, cap_kernels;
  ir_ref *args; uint32_t cap_args;                               /* room for the operands of the row being read */
  ir_graph **functions; uint32_t n_functions, cap_functions;     /* those before this one */
  void *list; size_t cap_list;                                   /* and for the text or list of numbers */
} parser;

/* Mistakes. at: an offset into the text. */
bool parse_wrong(parser *p, size_t at, const char *format, ...) TT_PRINTF(3, 4);   /* "file:line:column: ..." */
const char *parse_found(const parser *p, size_t at, char *to, size_t size);        /* what stands there, for messages */
bool parse_no_memory(parser *p);
bool parse_refused(parser *p, size_t at);                                          /* what the graph says of a row */
#define EXPECTED(AT, ...) return (void)parse_wrong(p, AT, "expected " __VA_ARGS__), false
#define FOUND(AT) parse_found(p, AT, (char[180]){0}, 180)

/* Room for one more in an array of n; for n elements of a size in p->list. */
bool parse_grow(parser *p, void *array, uint32_t n, uint32_t *cap, size_t size);
bool parse_room(parser *p, size_t n, size_t size);

/* Tokens. blanks stay on the line, space does not; next_is and take skip space first. */
void parse_blanks(parser *p);
void parse_space(parser *p);
bool parse_next_is(parser *p, const char *mark);
bool parse_take(parser *p, const char *mark);
bool parse_need(parser *p, const char *mark);
size_t parse_word(const parser *p);                                                /* length of the word here, 0: none */
bool parse_quoted(parser *p, const char **text);                                   /* "..."; interned */
bool parse_name(parser *p, const char *what, const char **text);                   /* a word or quoted; interned */
bool parse_integer(parser *p, const char *what, int64_t *v);
bool parse_integers(parser *p, size_t *n);                                         /* [1,2] into p->list */
bool parse_element(parser *p, tt_dtype t, void *to, int64_t i);                    /* a number as element i of `to` */
bool parse_type(parser *p, tt_dtype *t, tt_shape *s);                              /* f32[2,3] */
bool parse_origins(parser *p, uint32_t *origin);                                   /* # file:1 scope; ... or nothing */

/* Names of rows: a key is an interned name (aligned, so even) or an odd number. text: NULL for a number. */
bool parse_key(parser *p, uint64_t *key, const char **text);
ir_ref parse_lookup(const parser *p, uint64_t key);                                /* 0: not defined */
bool parse_define(parser *p, uint64_t key, ir_ref r, size_t at);
bool parse_new_name(parser *p, uint64_t *key, const char **text, size_t *at);
bool parse_reference(parser *p, ir_ref *r);

#endif
