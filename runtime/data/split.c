/* split.c: where a text is cut before byte pairs are joined: GPT-2's rule (Radford et al. 2019), which is there the regular expression
 *
 *     's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
 *
 * over code points. A byte that belongs to no UTF-8 sequence is neither letter, number nor blank. */
#include "tokenizer.h"

#include <string.h>

#include "unicode.h"

size_t tok_character(const uint8_t *s, size_t n, uint32_t *code) {
  static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
  size_t length = s[0] < 0x80 ? 1 : s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : s[0] >= 0xc0 ? 2 : 0;
  uint32_t c = s[0] < 0x80 ? s[0] : s[0] & (0x7fu >> length);
  bool good = length && length <= n && s[0] < 0xf8;
  for (size_t i = 1; i < length && good; i++) good = (s[i] & 0xc0) == 0x80, c = c << 6 | (s[i] & 0x3f);
  good = good && c >= least[length] && c <= 0x10ffff && !(c >= 0xd800 && c <= 0xdfff);
  *code = good ? c : 0xfffd;
  return good ? length : 1;
}

typedef enum { BLANK, LETTER, NUMBER, OTHER } kind;

static bool within(const code_range *ranges, size_t n, uint32_t c) {
  size_t low = 0, high = n;
  while (low < high) {
    size_t middle = (low + high) / 2;
    if (ranges[middle].last < c) low = middle + 1;
    else high = middle;
  }
  return low < n && ranges[low].first <= c;
}

static kind kind_of(uint32_t c) {
  if ((c >= 9 && c <= 13) || c == ' ' || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000) return BLANK;
  if (within(letters, sizeof letters / sizeof *letters, c)) return LETTER;
  return within(numbers, sizeof numbers / sizeof *numbers, c) ? NUMBER : OTHER;
}

/* How many bytes from the start on are of the kind; last: the length of the last character among them. */
static size_t run(const uint8_t *s, size_t n, kind k, size_t *last) {
  size_t i = 0;
  uint32_t c;
  for (size_t length; i < n; i += length, *last = length) {
    length = tok_character(s + i, n - i, &c);
    if (kind_of(c) != k) break;
  }
  return i;
}

size_t tok_piece(const uint8_t *s, size_t n) {
  static const char *const endings[] = {"s", "t", "re", "ve", "m", "ll", "d"};
  uint32_t c;
  size_t last = 0, skip = s[0] == ' ' && n > 1;
  for (size_t i = 0; i < 7 && s[0] == '\''; i++) {
    size_t length = strlen(endings[i]);
    if (n > length && !memcmp(s + 1, endings[i], length)) return 1 + length;
  }
  tok_character(s + skip, n - skip, &c);
  kind k = kind_of(c);
  if (k != BLANK) return skip + run(s + skip, n - skip, k, &last);
  size_t blanks = run(s, n, BLANK, &last);
  return blanks == n || blanks == last ? blanks : blanks - last;          /* the last one goes with the word behind it */
}
