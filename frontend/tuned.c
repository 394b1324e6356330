/* tuned.c: the file of plans that a compilation uses: one that is named, TT_TUNED, or the user's own, which `tinytorch tune` writes. */
#include "frontend.h"

#include <unistd.h>

const char *tuned_default(char *path, size_t size) {
  const char *named = getenv("TT_TUNED"), *config = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
  int n = 0;
  if (named && *named) n = snprintf(path, size, "%s", named);
  else if (config && *config) n = snprintf(path, size, "%s/tinytorch/tuned", config);
  else if (home && *home) n = snprintf(path, size, "%s/.config/tinytorch/tuned", home);
  return n > 0 && (size_t)n < size ? path : NULL;
}

tt_status tuned_read(pass_tunings *ts, const char *path, bool may_lack, tt_error *err) {
  rt_file f;
  if (may_lack && access(path, F_OK)) return TT_OK;
  tt_status status = rt_map_file(path, &f, err);
  if (status != TT_OK) return status;
  status = pass_tunings_read(ts, (const char *)f.data, f.bytes, path, err);
  rt_unmap_file(&f);
  return status;
}

bool tuned_note(const pass_tunings *ts, const char *path, char *text, size_t size) {
  if (!ts || ts->mine) return false;
  snprintf(text, size, "the file of tuned plans has none of this CPU, %s: the cost model's are used\n  at %.4000s\n  fix: run tinytorch tune on this CPU, or leave the file out", ts->cpu, path);
  return true;
}

tt_status tuned_for(const char *named, const cg_cpu *cpu, pass_tunings **tunings, tt_error *err) {
  char own[4096], text[64];
  const char *path = named ? named : tuned_default(own, sizeof own);
  *tunings = NULL;
  if (!path || strcmp(path, "none") == 0) return TT_OK;
  pass_tunings *ts = pass_tunings_new(cg_cpu_text(cpu, text, sizeof text));
  if (!ts) return tt_fail(err, TT_NO_MEMORY, "error: no memory for tuned plans\n  at %s\n  fix: free memory", path);
  tt_status status = tuned_read(ts, path, !named, err);
  if (status == TT_OK && (ts->mine || named)) *tunings = ts;
  else pass_tunings_free(ts);
  return status;
}
