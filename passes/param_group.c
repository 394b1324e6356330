/* param_group.c: which parameters a group of options means: by name, by a name with *, or by the number of axes. */
#include "passes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The whole text fits; * is any number of any characters. */
static bool fits(const char *pattern, const char *text) {
  const char *star = NULL, *back = NULL;
  while (*text) {
    if (*pattern == '*') star = pattern++, back = text;
    else if (*pattern == *text) pattern++, text++;
    else if (star) pattern = star + 1, text = ++back;
    else return false;
  }
  while (*pattern == '*') pattern++;
  return !*pattern;
}

/* Whole components: "fc1" has fc1.weight, not fc10.weight. */
static bool begins(const char *pattern, const char *name) {
  size_t n = strlen(pattern);
  return !strncmp(name, pattern, n) && (n == 0 || pattern[n - 1] == '.' || name[n] == '.' || name[n] == 0);
}

static bool is_axes(const char *pattern) { return !strncmp(pattern, "ndim", 4) && strchr("<>=!", pattern[4]) && pattern[4]; }

/* "ndim<2": the comparison and its number; false: not written so. */
static bool read_axes(const char *pattern, char op[3], long *n) {
  const char *p = pattern + 4;
  size_t length = strspn(p, "<>=!");
  char *end;
  if (length > 2) return false;
  memcpy(op, p, length), op[length] = 0;
  *n = strtol(p + length, &end, 10);
  return end != p + length && !*end && *n >= 0 && (!strcmp(op, "<") || !strcmp(op, "<=") || !strcmp(op, "=") || !strcmp(op, "==") || !strcmp(op, "!=") || !strcmp(op, ">=") || !strcmp(op, ">"));
}

static bool of_axes(const char *pattern, int have) {
  char op[3];
  long n;
  if (!read_axes(pattern, op, &n)) return false;
  if (op[0] == '!') return have != n;
  return (have == n && (op[0] == '=' || op[1] == '=')) || (have < n && op[0] == '<') || (have > n && op[0] == '>');
}

int pass_group(const pass_options *options, const char *name, int n_axes) {
  for (int i = 0; i < options->n_groups; i++) {
    const char *pattern = options->groups[i].pattern;
    if (is_axes(pattern) ? of_axes(pattern, n_axes) : strchr(pattern, '*') ? fits(pattern, name) : begins(pattern, name)) return i;
  }
  return -1;
}

tt_status pass_groups_check(const pass_options *options, tt_error *err) {
  for (int i = 0; i < options->n_groups; i++) {
    char op[3];
    long n;
    const char *pattern = options->groups[i].pattern;
    if (is_axes(pattern) && !read_axes(pattern, op, &n))
      return tt_fail(err, TT_INVALID, "error: the group \"%s\" is no comparison with a number of axes\n  at the parameter groups\n  fix: write it as ndim<2", pattern);
  }
  return TT_OK;
}
