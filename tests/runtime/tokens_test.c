/* Tokenizers and texts: what is encoded decodes to the same bytes, pieces are cut as GPT-2's expression cuts them, files are read back, windows come in an order
 * that depends on seed, epoch and number alone. */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../runtime/data/tokenizer.h"
#include "files.h"
#include "tests/fuzz/tokenizer_fuzz.c"

static const char story[] = "It's the cat's hat; they'll wear it, won't they? The cat sat on the mat.  The mat was flat, that was that.\n\n"
                            "Caf\xc3\xa9 na\xc3\xafve \xe4\xbd\xa0\xe5\xa5\xbd 123 4567 the cat the hat the mat";

static void decodes_to(const tt_tokenizer *t, const void *text, size_t n, const int32_t *ids, int64_t count) {
  size_t at = 0;
  for (int64_t i = 0; i < count; i++) {
    size_t bytes;
    const char *token = tt_tokenizer_token(t, ids[i], &bytes);
    cr_assert(bytes > 0 && at + bytes <= n && !memcmp((const char *)text + at, token, bytes), "token %d at byte %zu", (int)ids[i], at);
    at += bytes;
  }
  cr_assert_eq(at, n);
}

static int64_t round_trip(const tt_tokenizer *t, const void *text, size_t n) {
  tt_error err = {0};
  int32_t *ids;
  int64_t count;
  cr_assert_eq(tt_tokenizer_encode(t, text, n, &ids, &count, &err), TT_OK, "%s", err.message);
  decodes_to(t, text, n, ids, count);
  free(ids);
  return count;
}

Test(tokens, characters) {
  tt_error err = {0};
  tt_tokenizer *t = tt_tokenizer_train(story, strlen(story), "char", &err);
  cr_assert_not_null(t, "%s", err.message);
  int64_t characters = 0;
  for (const char *c = story; *c; c++) characters += (*c & 0xc0) != 0x80;
  cr_expect_eq(round_trip(t, story, strlen(story)), characters);
  cr_expect_eq(round_trip(t, "", 0), 0);
  int32_t *ids;
  int64_t n;
  cr_expect_eq(tt_tokenizer_encode(t, "cat\x01", 4, &ids, &n, &err), TT_INVALID);
  cr_expect(strstr(err.message, "at byte 3 of the text"), "%s", err.message);
  tt_tokenizer_free(t);
}

/* Any bytes, also those of no UTF-8. */
Test(tokens, byte_pairs_of_any_bytes) {
  tt_error err = {0};
  tt_tokenizer *t = tt_tokenizer_train(story, strlen(story), "bpe:300", &err);
  cr_assert_not_null(t, "%s", err.message);
  cr_expect_lt(round_trip(t, story, strlen(story)), (int64_t)strlen(story) * 2 / 3);
  for (int kind = 0; kind < 4; kind++)
    for (int length = 0; length < 700; length += 1 + length / 9) {
      uint8_t text[700];
      for (int i = 0; i < length; i++) {
        uint32_t r = tt_random_word(kind, (uint64_t)length, 0, (uint64_t)i);
        text[i] = kind == 0 ? (uint8_t)r : kind == 1 ? (uint8_t)" aet.'\n"[r % 7] : kind == 2 ? (uint8_t)(0x80 | r) : (uint8_t)story[r % strlen(story)];
      }
      round_trip(t, text, (size_t)length);
    }
  tt_tokenizer_free(t);
}

/* One piece of 200000 bytes takes no longer than its length asks for. */
Test(tokens, one_long_word, .timeout = 20) {
  enum { N = 200000 };
  tt_error err = {0};
  char *text = malloc(N);
  memset(text, 'a', N);
  tt_tokenizer *t = tt_tokenizer_train(text, N, "bpe:270", &err);
  cr_assert_not_null(t, "%s", err.message);
  cr_expect_lt(round_trip(t, text, N), N / 1000);
  tt_tokenizer_free(t);
  free(text);
}

Test(tokens, pieces) {
  static const struct { const char *text, *pieces; } cases[] = {
    {"Hello world", "Hello| world"}, {"it's we'll I'm 'quoted'", "it|'s| we|'ll| I|'m| '|quoted|'"}, {"a  b", "a| | b"}, {"a   ", "a|   "}, {"x\n\ny", "x|\n|\n|y"}, {"abc123 45.6!?", "abc|123| 45|.|6|!?"},
    {"caf\xc3\xa9 \xe4\xbd\xa0\xe5\xa5\xbd\xe3\x80\x80.", "caf\xc3\xa9| \xe4\xbd\xa0\xe5\xa5\xbd|\xe3\x80\x80|."}, {" \xc2\xb2\xc2\xbd", " \xc2\xb2\xc2\xbd"}, {"\xff\xfe a", "\xff\xfe| a"}, {"\t tab", "\t| tab"}, {"'S 're", "'|S| '|re"},
  };
  for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
    char got[200] = "";
    for (size_t i = 0, n = strlen(cases[c].text), length; i < n; i += length) {
      length = tok_piece((const uint8_t *)cases[c].text + i, n - i);
      snprintf(got + strlen(got), sizeof got - strlen(got), "%s%.*s", i ? "|" : "", (int)length, cases[c].text + i);
    }
    cr_expect_str_eq(got, cases[c].pieces);
  }
}

/* The first merges of a text that is counted by hand: "ab" five times, then "abc" four times, then " a" never twice in words of one letter. */
Test(tokens, merges_by_frequency) {
  tt_error err = {0};
  const char *text = "abc abc abcd abx abc";
  tt_tokenizer *t = tt_tokenizer_train(text, strlen(text), "bpe:258", &err);
  cr_assert_not_null(t, "%s", err.message);
  cr_assert_eq(tt_tokenizer_size(t), 258);
  size_t n;
  cr_expect(!memcmp(tt_tokenizer_token(t, 256, &n), "ab", 2) && n == 2);      /* ab occurs five times; " a" four times, as bc does: the pair of the older tokens (the blank's) is first */
  cr_expect(!memcmp(tt_tokenizer_token(t, 257, &n), " ab", 3) && n == 3);
  cr_expect_null(tt_tokenizer_train(text, strlen(text), "bpe:12", &err));
  cr_expect(strstr(err.message, "use char, or bpe:N"), "%s", err.message);
  err = (tt_error){0};
  cr_expect_null(tt_tokenizer_train(text, (size_t)INT32_MAX, "bpe:258", &err));
  cr_expect(strstr(err.message, "too long"), "%s", err.message);
  tt_tokenizer_free(t);
}

Test(tokens, files) {
  tt_error err = {0};
  folder f = folder_new();
  const char *dir = f.dir;
  for (int kind = 0; kind < 2; kind++) {
    tt_tokenizer *t = tt_tokenizer_train(story, strlen(story), kind ? "bpe:310" : "char", &err), *u;
    cr_assert_eq(tt_tokenizer_save(t, dir, &err), TT_OK, "%s", err.message);
    cr_assert_not_null(u = tt_tokenizer_load(dir, &err), "%s", err.message);
    cr_expect_eq(tt_tokenizer_size(t), tt_tokenizer_size(u));
    int32_t *a, *b;
    int64_t n, m;
    cr_assert_eq(tt_tokenizer_encode(t, story, strlen(story), &a, &n, &err), TT_OK);
    cr_assert_eq(tt_tokenizer_encode(u, story, strlen(story), &b, &m, &err), TT_OK);
    cr_expect(n == m && !memcmp(a, b, (size_t)n * sizeof *a));
    free(a), free(b);
    tt_tokenizer_free(t), tt_tokenizer_free(u);
  }
  folder_remove(&f);
}

/* GPT-2's own lines, as its files have them. */
Test(tokens, gpt2_layout) {
  tt_error err = {0};
  const char *vocab = "{\"t\": 0, \"h\": 1, \"e\": 2, \"\\u0120\": 3, \"\\u0120t\": 4, \"he\": 5, \"\\u0120the\": 6, \"<|endoftext|>\": 7}", *merges = "#version: 0.2\n\xc4\xa0 t\nh e\n\xc4\xa0t he\n";
  tt_tokenizer *t = tt_tokenizer_parse("here", vocab, strlen(vocab), merges, strlen(merges), &err);
  cr_assert_not_null(t, "%s", err.message);
  int32_t *ids;
  int64_t n;
  cr_assert_eq(tt_tokenizer_encode(t, "the the", 7, &ids, &n, &err), TT_OK);
  cr_expect(n == 3 && ids[0] == 0 && ids[1] == 5 && ids[2] == 6);
  free(ids);
  tt_tokenizer_free(t);
  static const struct { const char *vocab, *merges, *says; } bad[] = {
    {"[]", "", "expected an object"}, {"{\"a\": 0, \"a\": 1}", "", "duplicate"}, {"{\"a\": 1}", "", "numbered from 0"}, {"{\"a\": 0.5}", "", "numbered from 0"}, {"{\"\": 0}", "", "stand for bytes"},
    {"{\"\xe4\xbd\xa0\": 0}", "", "stand for bytes"}, {"{\"a\": 0, \"b\": 1}", "a b\n", "two tokens that make a third"}, {"{\"a\": 0}", "a\n", "two tokens"}, {"{\"a\": 0, \"aa\": 1}", "a a\na a\n", "merged twice"},
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    err = (tt_error){0};
    cr_expect_null(tt_tokenizer_parse("here", bad[i].vocab, strlen(bad[i].vocab), bad[i].merges, strlen(bad[i].merges), &err));
    cr_expect(strstr(err.message, bad[i].says) && strstr(err.message, "\n  fix: "), "case %zu: %s", i, err.message);
  }
}

/* The fuzzing target over two sets of files with a text each, cut anywhere, and changed at random. */
Test(tokens, any_bytes_as_files, .timeout = 60) {
  static const char gpt2[] = "{\"t\": 0, \"h\": 1, \"e\": 2, \"\\u0120\": 3, \"\\u0120t\": 4, \"he\": 5, \"\\u0120the\": 6, \"<|endoftext|>\": 7}\0#version: 0.2\n\xc4\xa0 t\r\nh e\n\xc4\xa0t he\n\0the the tthe  hhee";
  static const char characters[] = "{\"a\":0,\"\\u00c3\\u00a9\":1,\"\\u0120\":2}\0\0a\xc3\xa9 a";
  static const struct { const char *files; size_t n; } corpus[] = {{gpt2, sizeof gpt2 - 1}, {characters, sizeof characters - 1}};
  static const char *const pieces[] = {"\"", "{}", ", ", "\"he\": 5", "\\u0120", "\\ud800", "\n", " ", "h e\n", "\xc4\xa0", "\xe4\xbd\xa0", "-1", "1e9", "99999999999"};
  uint64_t next = 0;
#define RANDOM(n) (tt_random_word(11, 0, 0, next++) % (uint32_t)(n))
  for (size_t c = 0; c < sizeof corpus / sizeof *corpus; c++) {
    size_t n = corpus[c].n;
    for (size_t i = 0; i <= n; i++) LLVMFuzzerTestOneInput((const uint8_t *)corpus[c].files, i);
    for (int round = 0; round < 2000; round++) {
      char text[1000];
      size_t m = n;
      memcpy(text, corpus[c].files, n);
      for (size_t k = 1 + RANDOM(3); k > 0; k--) {
        const char *piece = pieces[RANDOM(sizeof pieces / sizeof *pieces)];
        size_t at = RANDOM(m), length = 1 + RANDOM(8), room = strlen(piece), kind = RANDOM(3);
        if (at + length > m) length = m - at;
        if (kind == 0) text[at] = (char)RANDOM(256);
        else if (kind == 1 && m > length) memmove(text + at, text + at + length, m - at - length), m -= length;                  /* cut */
        else memmove(text + at + room, text + at, m - at), memcpy(text + at, piece, room), m += room;
      }
      LLVMFuzzerTestOneInput((const uint8_t *)text, m);
    }
  }
#undef RANDOM
}

/* -- Windows --------------------------------------------------------------------------------------------------------------------- */

static void next(tt_loader *l, tt_batch *b) {
  tt_error err = {0};
  cr_assert_eq(tt_loader_next(l, b, &err), TT_OK, "%s", err.message);
}

Test(windows, every_token_once_an_epoch) {
  tt_error err = {0};
  tt_tokenizer *t = NULL;
  tt_dataset *train, *test;
  cr_assert_eq(tt_text_open("sentences:200", &(tt_text_options){.context = 32}, &t, &train, &test, &err), TT_OK, "%s", err.message);
  cr_assert(train->n > 100 && test->n > 10 && train->n_classes == tt_tokenizer_size(t));
  tt_loader *l = tt_loader_new(train, &(tt_loader_options){.batch = 4, .shuffle = true, .seed = 3}, &err);
  cr_assert_not_null(l, "%s", err.message);
  int64_t n = tt_loader_batches(l), n_windows = 0;
  int32_t *windows = calloc((size_t)(n * 4) * 32, sizeof *windows);
  tt_batch b;
  int32_t fifth[4 * 32];
  for (int64_t k = 0; k < n; k++) {
    next(l, &b);
    const int32_t *x = tt_tensor_data(b.x), *y = tt_tensor_data(b.y);
    if (k == 5) memcpy(fifth, x, sizeof fifth);
    for (int64_t i = 0; i < b.count; i++) {
      for (int64_t c = 0; c + 1 < 32; c++) cr_assert_eq(x[i * 32 + c + 1], y[i * 32 + c]);
      memcpy(windows + 32 * n_windows++, x + i * 32, 32 * sizeof *x);
    }
  }
  cr_assert_eq(n_windows, train->n);
  bool found = false;                                  /* from some place in the first window on, they stand one behind the other */
  for (int64_t offset = 0; offset < 32 && !found; offset++) {
    bool *taken = calloc((size_t)train->n, 1);
    int64_t k = 0, at = 0;
    for (; k < n_windows && at < train->n; k++) {
      for (at = 0; at < train->n && (taken[at] || memcmp(train->tokens + offset + at * 32, windows + k * 32, 32 * sizeof *windows)); at++) {}
      if (at < train->n) taken[at] = true;
    }
    found = at < train->n;
    free(taken);
  }
  cr_expect(found);
  next(l, &b);
  cr_expect_eq(b.epoch, 1);
  tt_loader_seek(l, 0, 5);
  next(l, &b);
  cr_expect(!memcmp(fifth, tt_tensor_data(b.x), sizeof fifth));
  free(windows);
  tt_loader_free(l);
  tt_dataset_free(train), tt_dataset_free(test);
  tt_tokenizer_free(t);
}

Test(windows, the_last_batch_counts_once) {
  tt_error err = {0};
  tt_tokenizer *t = NULL;
  tt_dataset *train, *test;
  cr_assert_eq(tt_text_open("sentences:60", &(tt_text_options){.context = 16}, &t, &train, &test, &err), TT_OK, "%s", err.message);
  tt_loader *l = tt_loader_new(test, &(tt_loader_options){.batch = 5}, &err);
  tt_batch b;
  int64_t labels = 0;
  for (int64_t k = 0; k < tt_loader_batches(l); k++) {
    next(l, &b);
    for (int i = 0; i < 5 * 16; i++) labels += ((const int32_t *)tt_tensor_data(b.y))[i] >= 0;
  }
  cr_expect_eq(labels, test->n * 16);
  tt_loader_free(l);
  tt_dataset_free(train), tt_dataset_free(test);
  tt_tokenizer_free(t);
}

/* Devlin et al. 2018: 15% are guessed; of these 80% are hidden, 10% another token, 10% as they were. */
Test(windows, masked) {
  tt_error err = {0};
  tt_tokenizer *t = NULL;
  tt_dataset *train, *test;
  cr_assert_eq(tt_text_open("sentences:3000", &(tt_text_options){.context = 64, .masked = 0.15}, &t, &train, &test, &err), TT_OK, "%s", err.message);
  cr_assert_eq(train->n_classes, tt_tokenizer_size(t) + 1);
  tt_loader *l = tt_loader_new(train, &(tt_loader_options){.batch = 16, .shuffle = true}, &err);
  tt_batch b;
  double all = 0, guessed = 0, hidden = 0, same = 0;
  for (int k = 0; k < 40; k++) {
    next(l, &b);
    const int32_t *x = tt_tensor_data(b.x), *y = tt_tensor_data(b.y);
    for (int i = 0; i < 16 * 64; i++) all++, guessed += y[i] >= 0, hidden += y[i] >= 0 && x[i] == train->n_classes - 1, same += y[i] >= 0 && x[i] == y[i];
  }
  cr_expect_float_eq(guessed / all, 0.15, 0.01);
  cr_expect_float_eq(hidden / guessed, 0.8, 0.02);
  cr_expect_float_eq(same / guessed, 0.1, 0.03);
  tt_loader_free(l);
  tt_dataset_free(train), tt_dataset_free(test);
  tt_tokenizer_free(t);
}

Test(windows, mistakes) {
  tt_tokenizer *t = NULL;
  tt_dataset *train, *test;
  folder f = folder_new();
  cr_assert_eq(rt_write_file(in(&f, "vocab.json"), "", 0, NULL), TT_OK);
  cr_assert_eq(rt_write_file(in(&f, "merges.txt"), "", 0, NULL), TT_OK);
  tt_error none = {0};
  cr_expect(!tt_tokenizer_load(f.dir, &none) && strstr(none.message, "vocab.json, line 1"), "%s", none.message);
  const struct { const char *what; int64_t context; const char *says; } bad[] = {{in(&f, "merges.txt"), 8, "error: the text to train on is too short"}, {"sentences:0", 8, "no number of sentences"}, {"sentences:2", 256, "too short"}, {"/nowhere/at/all.txt", 8, "opening"}, {"sentences:20", -1, "windows of -1"}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    tt_error err = {0};
    cr_expect_neq(tt_text_open(bad[i].what, &(tt_text_options){.context = bad[i].context}, &t, &train, &test, &err), TT_OK);
    cr_expect(strstr(err.message, bad[i].says) && strstr(err.message, "\n  fix: "), "%s", err.message);
    cr_expect(!t && !train && !test);
  }
  folder_remove(&f);
}

/* Folders whose files have paths longer than the system takes are said to be, not cut to another path. */
Test(tokens, paths_that_are_too_long) {
  static char dir[5000];
  tt_tokenizer *t = NULL;
  tt_dataset *train, *test;
  tt_error err = {0};
  char path[RT_PATH];
  memset(dir, 'f', 4090);
  cr_expect_null(tt_tokenizer_load(dir, &err));
  cr_expect(strstr(err.message, "the path of vocab.json is too long, 4101 bytes"), "%s", err.message);
  err = (tt_error){0};
  cr_expect_eq(rt_path(path, dir, "abcd", &err), TT_OK);
  cr_expect_eq(strlen(path), RT_PATH - 1);
  cr_expect_eq(rt_path(path, dir, "abcde", &err), TT_INVALID);
  static char real[4200];                                /* ./././ ... is a folder, of a path that leaves no room for val.txt */
  for (int i = 0; i < 2043; i++) strcat(real, "./");
  err = (tt_error){0};
  cr_expect_neq(tt_text_open(real, &(tt_text_options){.context = 4}, &t, &train, &test, &err), TT_OK);
  cr_expect(strstr(err.message, "the path of train.txt is too long"), "%s", err.message);
}
