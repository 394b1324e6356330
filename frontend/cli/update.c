/* update.c: how a training step updates: --optimizer, --hyper, --clip-norm, --no-decay-norm-bias, --groups "PATTERN: OPTIMIZER k=v, ...; ...", and what muon's matrices leave over. */
#include "options.h"

#include <string.h>

enum { GROUPS = 8 };

static char *trimmed(char *p) {
  p += strspn(p, " ");
  for (size_t n = strlen(p); n && p[n - 1] == ' ';) p[--n] = 0;
  return p;
}

static bool read_groups(const cli_args *a, cli_update *u) {
  const char *given = cli_get(a, "groups", strcmp(u->optimizer, "muon") ? "" : CLI_MUON_GROUPS);
  if (strlen(given) >= sizeof u->text) return cli_usage(a, "--groups is too long"), false;
  strcpy(u->text, given);
  int n = 0;
  for (char *at = u->text, *next; at && *trimmed(at); at = next) {
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
    u->groups[n++] = (tt_param_group){trimmed(at), strcmp(name, "frozen") ? name : NULL, trimmed(hyper)};
  }
  return true;
}

bool cli_update_read(const cli_args *a, const model_info *info, cli_update *u) {
  const char *optimizer = cli_get(a, "optimizer", info->optimizer);
  *u = (cli_update){.optimizer = optimizer, .hyper = cli_get(a, "hyper", strcmp(optimizer, info->optimizer) ? NULL : info->hyper), .no_decay_norm_bias = cli_has(a, "no-decay-norm-bias")};
  if (!cli_optimizer(a) || !cli_double(a, "clip-norm", 0, &u->clip_norm) || !read_groups(a, u)) return false;
  return u->clip_norm >= 0 ? true : (cli_usage(a, "--clip-norm wants a number of at least 0"), false);
}

void cli_update_put(const cli_update *u, tt_compile_options *o) {
  o->optimizer = u->optimizer, o->hyper = u->hyper, o->clip_norm = u->clip_norm, o->no_decay_norm_bias = u->no_decay_norm_bias;
  memcpy(o->groups, u->groups, sizeof u->groups);
}
