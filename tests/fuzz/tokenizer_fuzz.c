/* libFuzzer: any bytes as vocab.json, merges.txt and a text, with a zero byte between them. What is read encodes the text or says what it lacks; what is encoded decodes to
 * the same bytes; and what is learned from the text encodes any bytes.
 *   clang-19 -g -O1 -fsanitize=fuzzer,address,undefined tests/fuzz/tokenizer_fuzz.c ir/types.c runtime/files.c runtime/data/{tokenizer,tokenizer_file,split,bpe}.c -ljansson
 * tests/runtime/tokens_test.c runs the same function over a few files and random changes of them. */
#include <stdlib.h>
#include <string.h>

#include "../../runtime/runtime.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void same_bytes(const tt_tokenizer *t, const uint8_t *text, size_t n, bool all) {
  tt_error err = {0};
  int32_t *ids;
  int64_t count;
  tt_status status = tt_tokenizer_encode(t, text, n, &ids, &count, &err);
  if (status != err.status || (status != TT_OK && (all || status != TT_INVALID || ids || !strstr(err.message, "no token for")))) abort();
  size_t at = 0, bytes;
  for (int64_t i = 0; i < count; i++, at += bytes) {
    const char *token = tt_tokenizer_token(t, ids[i], &bytes);
    if (ids[i] < 0 || ids[i] >= tt_tokenizer_size(t) || !bytes || bytes > n - at || memcmp(text + at, token, bytes)) abort();
  }
  if (status == TT_OK && at != n) abort();
  free(ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const uint8_t *cut = size ? memchr(data, 0, size) : NULL, *merges = cut ? cut + 1 : data + size, *end = data + size, *second = merges < end ? memchr(merges, 0, (size_t)(end - merges)) : NULL, *text = second ? second + 1 : end;
  tt_error err = {0};
  tt_tokenizer *t = tt_tokenizer_parse("fuzz", data, (size_t)((cut ? cut : end) - data), merges, (size_t)((second ? second : end) - merges), &err);
  if (!t != (err.status != TT_OK) || (!t && (err.status != TT_FORMAT || !strstr(err.message, "\n  fix: ")))) abort();
  if (t) same_bytes(t, text, (size_t)(end - text), false);
  tt_tokenizer_free(t);
  err = (tt_error){0};
  for (int kind = 0; kind < 2; kind++) {
    if (!(t = tt_tokenizer_train(text, (size_t)(end - text), kind ? "bpe:300" : "char", &err))) abort();
    same_bytes(t, text, (size_t)(end - text), true);
    if (kind) same_bytes(t, data, size, true);
    tt_tokenizer_free(t);
  }
  return 0;
}
