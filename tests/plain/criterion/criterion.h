/* criterion.h: what our tests use of Criterion, in one process without forks, for the sanitizers: the thread sanitizer cannot run Criterion's
 * own runner, and the leak checker's word is lost in its children. Each test program includes this in place of Criterion when it is
 * built with TT_PLAIN_TESTS. */
#ifndef TT_PLAIN_CRITERION_H
#define TT_PLAIN_CRITERION_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct plain_test { const char *suite, *name; void (*run)(void); struct plain_test *next; } plain_test;
static plain_test *plain_first, **plain_last = &plain_first;
typedef struct plain_suite { const char *name; void (*init)(void), (*fini)(void); struct plain_suite *next; } plain_suite;
static plain_suite *plain_suites;
static jmp_buf plain_out;
static int plain_failures;

#define Test(suite_, name_, ...) \
  static void suite_##_##name_##_run(void); \
  __attribute__((constructor)) static void suite_##_##name_##_add(void) { \
    static plain_test t = {#suite_, #name_, suite_##_##name_##_run, NULL}; \
    *plain_last = &t, plain_last = &t.next; \
  } \
  static void suite_##_##name_##_run(void)

#define TestSuite(name_, ...) \
  __attribute__((constructor)) static void name_##_suite_add(void) { \
    static plain_suite s = {.name = #name_, __VA_ARGS__}; \
    s.next = plain_suites, plain_suites = &s; \
  } \
  struct plain_suite

__attribute__((format(printf, 4, 5), unused)) static void plain_fail(const char *file, int line, const char *what, const char *format, ...) {
  plain_failures++;
  printf("[----] %s:%d: %s: ", file, line, what);
  va_list args;
  va_start(args, format);
  vprintf(format, args);
  va_end(args);
  printf("\n");
}

#define PLAIN_(fatal, condition, what, ...) \
  do { \
    if (!(condition)) { \
      plain_fail(__FILE__, __LINE__, what, " " __VA_ARGS__); \
      if (fatal) longjmp(plain_out, 1); \
    } \
  } while (0)
#define PLAIN_NEAR_(a, b, e) (fabs((double)(a) - (double)(b)) <= (double)(e))

#define cr_assert(c, ...) PLAIN_(1, c, #c, __VA_ARGS__)
#define cr_assert_not(c, ...) PLAIN_(1, !(c), "not " #c, __VA_ARGS__)
#define cr_assert_eq(a, b, ...) PLAIN_(1, (a) == (b), #a " == " #b, __VA_ARGS__)
#define cr_assert_neq(a, b, ...) PLAIN_(1, (a) != (b), #a " != " #b, __VA_ARGS__)
#define cr_assert_lt(a, b, ...) PLAIN_(1, (a) < (b), #a " < " #b, __VA_ARGS__)
#define cr_assert_leq(a, b, ...) PLAIN_(1, (a) <= (b), #a " <= " #b, __VA_ARGS__)
#define cr_assert_gt(a, b, ...) PLAIN_(1, (a) > (b), #a " > " #b, __VA_ARGS__)
#define cr_assert_geq(a, b, ...) PLAIN_(1, (a) >= (b), #a " >= " #b, __VA_ARGS__)
#define cr_assert_null(a, ...) PLAIN_(1, (a) == NULL, #a " is NULL", __VA_ARGS__)
#define cr_assert_not_null(a, ...) PLAIN_(1, (a) != NULL, #a " is not NULL", __VA_ARGS__)
#define cr_assert_str_eq(a, b, ...) PLAIN_(1, strcmp(a, b) == 0, #a " equals " #b, __VA_ARGS__)
#define cr_assert_float_eq(a, b, e, ...) PLAIN_(1, PLAIN_NEAR_(a, b, e), #a " is near " #b, __VA_ARGS__)
#define cr_assert_fail(...) PLAIN_(1, 0, "fail", __VA_ARGS__)
#define cr_expect(c, ...) PLAIN_(0, c, #c, __VA_ARGS__)
#define cr_expect_not(c, ...) PLAIN_(0, !(c), "not " #c, __VA_ARGS__)
#define cr_expect_eq(a, b, ...) PLAIN_(0, (a) == (b), #a " == " #b, __VA_ARGS__)
#define cr_expect_neq(a, b, ...) PLAIN_(0, (a) != (b), #a " != " #b, __VA_ARGS__)
#define cr_expect_lt(a, b, ...) PLAIN_(0, (a) < (b), #a " < " #b, __VA_ARGS__)
#define cr_expect_leq(a, b, ...) PLAIN_(0, (a) <= (b), #a " <= " #b, __VA_ARGS__)
#define cr_expect_gt(a, b, ...) PLAIN_(0, (a) > (b), #a " > " #b, __VA_ARGS__)
#define cr_expect_geq(a, b, ...) PLAIN_(0, (a) >= (b), #a " >= " #b, __VA_ARGS__)
#define cr_expect_null(a, ...) PLAIN_(0, (a) == NULL, #a " is NULL", __VA_ARGS__)
#define cr_expect_not_null(a, ...) PLAIN_(0, (a) != NULL, #a " is not NULL", __VA_ARGS__)
#define cr_expect_str_eq(a, b, ...) PLAIN_(0, strcmp(a, b) == 0, #a " equals " #b, __VA_ARGS__)
#define cr_expect_float_eq(a, b, e, ...) PLAIN_(0, PLAIN_NEAR_(a, b, e), #a " is near " #b, __VA_ARGS__)
#define cr_expect_arr_eq(a, b, n, ...) PLAIN_(0, memcmp(a, b, n) == 0, #a " equals " #b, __VA_ARGS__)

int main(void) {
  int tested = 0, failing = 0;
  for (plain_test *t = plain_first; t; t = t->next) {
    int before = plain_failures;
    plain_suite *s = plain_suites;
    while (s && strcmp(s->name, t->suite) != 0) s = s->next;
    if (s && s->init) s->init();
    if (setjmp(plain_out) == 0) t->run();
    if (s && s->fini) s->fini();
    tested++;
    if (plain_failures > before) {
      failing++;
      printf("[FAIL] %s::%s\n", t->suite, t->name);
    }
    fflush(stdout);
  }
  printf("[====] Synthesis: Tested: %d | Passing: %d | Failing: %d | Crashing: 0\n", tested, tested - failing, failing);
  return failing > 0;
}

#endif
