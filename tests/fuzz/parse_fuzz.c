/* parse_fuzz.c: any text either is refused with a message, or is a graph whose print reads back to the same bytes.
 *
 *     clang-19 -g -O1 -fsanitize=fuzzer,address,undefined tests/fuzz/parse_fuzz.c ir/[a-z]*.c -lm -o build/parse_fuzz
 *     build/parse_fuzz -max_total_time=120 CORPUS
 *
 * tests/ir/text_test.c runs the same function over a few texts and random changes of them. */
#include "../../ir/ir.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(condition)                                                            \
  do {                                                                                \
    if (!(condition)) fprintf(stderr, "%s does not hold\n%s\n", #condition, err.message), abort(); \
  } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  tt_error err = {0};
  ir_graph *g = ir_parse((const char *)data, size, "fuzz", &err);
  REQUIRE(!g == (err.status != TT_OK));
  if (!g) {
    REQUIRE(err.status == TT_FORMAT && !strncmp(err.message, "fuzz:", 5));
    return 0;
  }
  REQUIRE(ir_verify(g, "parse", &err) == TT_OK || err.status == TT_INTERNAL);      /* a text may place rows wrongly */
  memset(&err, 0, sizeof err);
  char *first = ir_print(g);
  REQUIRE(first);
  ir_graph *h = ir_parse(first, strlen(first), "printed", &err);
  REQUIRE(h);
  char *second = ir_print(h);
  REQUIRE(second && !strcmp(first, second));
  free(first), free(second);
  ir_graph_free(g), ir_graph_free(h);
  return 0;
}
