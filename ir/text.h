/* text.h: what print.c and parse.c agree on beyond the grammar in ir.h.
 *
 *     func @f(%x: f32[2,3], param %w: f32[3,4], state %m: f32[2,4]) -> f32[2,4] arena=64 {
 *       %2 = const(value=[0,0.5,inf,nan,1,2,3,4]) : f32[2,4]
 *       kernel @k0(%x, %w, %2) -> %h [kind=1, tile=[6,16]] {
 *         %z = matmul(%x, %w) : f32[2,4]  # net.c:12 fc1
 *         %h = add(%z, %2) : f32[2,4] @0  # net.c:12 fc1; "my net.c":13
 *       }
 *       assign(%m, %h)
 *       return %h
 *     }
 *
 * What the type says already (attributes dtype and shape) and flags at their neutral value are not printed, and may be left out
 * of a text; all other attributes must be there. A word of digits only is a row without a name, numbered by its position;
 * names that are not words, or are digits only, are quoted: %"my name". A line that starts with # is a comment. */
#ifndef TT_TEXT_H
#define TT_TEXT_H

#include "ir.h"
#include <string.h>

static inline bool text_is_word_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '.' || c == '/' || c == '$';
}
static inline bool text_is_digits(const char *s, size_t n) {
  for (size_t i = 0; i < n; i++)
    if (s[i] < '0' || s[i] > '9') return false;
  return n > 0;
}

/* A flag's neutral value; false: the attribute is always written. */
static inline bool text_neutral(const char *attribute, int64_t *value) {
  static const struct { const char *name; int64_t value; } flags[] = {
    {"ta", 0}, {"tb", 0}, {"split", 1}, {"winograd", 0}, {"exclusive", 0}, {"reversed", 0}, {"descending", 0}, {"tanh", 0}, {"causal", 0}, {"mask", 0}, {"length", 0},
  };
  for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
    if (!strcmp(attribute, flags[i].name)) return *value = flags[i].value, true;
  return false;
}

/* The arguments of a run are the rows that text_new_argument says yes to, asked for every operand of its rows in order. run: the
 * run of each row, 0 for none; seen: of each row, the last run that has it as an argument. */
static inline bool text_new_argument(const uint32_t *run, uint32_t *seen, uint32_t current, ir_ref a) {
  if (run[a] == current || seen[a] == current) return false;
  seen[a] = current;
  return true;
}
/* Its results are its rows that something outside of it reads. live NULL: every row counts. */
void text_mark_results(const ir_graph *g, const bool *live, const uint32_t *run, bool *result);

#endif
