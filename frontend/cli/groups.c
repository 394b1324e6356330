/* groups.c: --groups "PATTERN: OPTIMIZER k=v, ...; ...", and what muon's matrices leave over. */
#include "options.h"

#include <string.h>

enum { GROUPS = 8 };

static char *trimmed(char *p) {
  p += strspn(p, " ");
  for (size_t n = strlen(p); n && p[n - 1] == ' ';) p[--n] = 0;
  return p;
}

bool cli_groups(const cli_args *a, const char *optimizer, tt_param_group groups[GROUPS], char *text, size_t size) {
  const char *given = cli_get(a, "groups", strcmp(optimizer, "muon") ? "" : CLI_MUON_GROUPS);
  if (strlen(given) >= size) return cli_usage(a, "--groups is too long"), false;
  strcpy(text, given);
  int n = 0;
  for (char *at = text, *next; at && *trimmed(at); at = next) {
    if ((next = strchr(at, ';'))) *next++ = 0;
    char *colon = strchr(at, ':');
    if (!colon || n == GROUPS) return cli_usage(a, "--groups wants at most 8 parts like \"ndim<2: adamw weight_decay=0; fc1: frozen\""), false;
    *colon = 0;
    char *name = trimmed(colon + 1), *hyper = name + strcspn(name, " ");
    if (*hyper) *hyper++ = 0;
    const char *names[64] = {"frozen"};
    int n_names = 1;
    for (const optim_info *o = optim_table; o->name && n_names < 63; o++) names[n_names++] = o->name;
    bool known = false;
    for (int i = 0; i < n_names; i++) known |= !strcmp(names[i], name);
    if (!known) return cli_unknown("optimizer", name, names), false;
    groups[n++] = (tt_param_group){trimmed(at), strcmp(name, "frozen") ? name : NULL, trimmed(hyper)};
  }
  return true;
}
