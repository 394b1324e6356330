/* image.c: kernels' images: their form in a file, checked before anything is believed, and the memory that they run in. */
#define _GNU_SOURCE
#include "image.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

/* Little-endian, as every CPU that can run the image is. */
typedef struct {
  char magic[8];
  uint32_t version, head_bytes;
  uint8_t key[16];
  uint64_t bytes, entry;
  char about[RT_IMAGE_ABOUT];
  uint8_t zero[8];
  uint8_t check[16];               /* XXH3-128 of the head before this, then of the image */
} file_head;
_Static_assert(sizeof(file_head) == RT_IMAGE_HEAD, "the head has no gaps");
enum { VERSION = 1 };
static const char magic[8] = "TTKERNEL";

static rt_key key_of_hash(XXH128_hash_t h) {
  XXH128_canonical_t c;
  rt_key k;
  XXH128_canonicalFromHash(&c, h);
  memcpy(k.bytes, c.digest, sizeof k.bytes);
  return k;
}

rt_key rt_key_of(const void *data, size_t bytes) { return key_of_hash(XXH3_128bits(data, bytes)); }

char *rt_key_text(const rt_key *k, char text[33]) {
  static const char digits[] = "0123456789abcdef";
  for (int i = 0; i < 16; i++) text[2 * i] = digits[k->bytes[i] >> 4], text[2 * i + 1] = digits[k->bytes[i] & 15];
  text[32] = 0;
  return text;
}

/* Of the head and of the image apart, then of both sums: no copy is needed to have them in a row. */
static rt_key check_of(const file_head *h, const void *data, size_t bytes) {
  rt_key parts[2] = {rt_key_of(h, offsetof(file_head, check)), rt_key_of(data, bytes)};
  return rt_key_of(parts, sizeof parts);
}

void rt_image_head(const rt_image *image, const rt_key *key, const char *about, uint8_t head[RT_IMAGE_HEAD]) {
  file_head h = {.version = VERSION, .head_bytes = sizeof h, .bytes = image->bytes, .entry = image->entry};
  memcpy(h.magic, magic, sizeof magic);
  memcpy(h.key, key->bytes, sizeof h.key);
  memcpy(h.about, about, strnlen(about, sizeof h.about - 1));
  rt_key check = check_of(&h, image->data, image->bytes);
  memcpy(h.check, check.bytes, sizeof h.check);
  memcpy(head, &h, sizeof h);
}

const char *rt_image_parse(const void *file, size_t bytes, const rt_key *key, rt_image *image, char about[RT_IMAGE_ABOUT]) {
  file_head h;
  *image = (rt_image){0};
  if (about) about[0] = 0;
  if (bytes < sizeof h) return "it is cut off";
  memcpy(&h, file, sizeof h);
  if (memcmp(h.magic, magic, sizeof magic)) return "it is no kernel's file";
  if (h.version != VERSION || h.head_bytes != sizeof h) return "it is of another version";
  if (h.bytes != bytes - sizeof h) return h.bytes > bytes - sizeof h ? "it is cut off" : "it has bytes at its end that do not belong there";
  if (h.bytes > RT_IMAGE_MAX || h.entry >= h.bytes) return "its sizes make no sense";
  const char *data = (const char *)file + sizeof h;
  rt_key check = check_of(&h, data, (size_t)h.bytes);
  if (memcmp(check.bytes, h.check, sizeof h.check)) return "its checksum is wrong";
  if (h.about[RT_IMAGE_ABOUT - 1]) return "its description has no end";
  if (key && memcmp(h.key, key->bytes, sizeof h.key)) return "it holds another kernel than its name says";
  *image = (rt_image){(void *)data, (size_t)h.bytes, (size_t)h.entry};
  if (about) memcpy(about, h.about, RT_IMAGE_ABOUT);
  return NULL;
}

/* ---- in memory */

struct rt_code { void *memory; size_t bytes; };

static size_t up(size_t n, size_t to) { return (n + to - 1) / to * to; }

rt_code *rt_code_load(const rt_image *images, int n, rt_kernel **kernels, tt_error *err) {
  rt_code *c = calloc(1, sizeof *c);
  size_t bytes = 0;
  for (int i = 0; i < n; i++) bytes += up(images[i].bytes, RT_IMAGE_ALIGN);
  if (c) c->bytes = up(bytes ? bytes : 1, (size_t)sysconf(_SC_PAGESIZE));
  if (c) c->memory = mmap(NULL, c->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (!c || c->memory == MAP_FAILED) {
    free(c);
    return tt_fail(err, TT_NO_MEMORY, "error: no memory for machine code\n  at %zu bytes of %d kernels\n  fix: free memory", bytes, n), NULL;
  }
  char *at = c->memory;
  for (int i = 0; i < n; i++) {
    memcpy(at, images[i].data, images[i].bytes);
    kernels[i] = (rt_kernel *)(uintptr_t)(at + images[i].entry);
    at += up(images[i].bytes, RT_IMAGE_ALIGN);
  }
  if (mprotect(c->memory, c->bytes, PROT_READ | PROT_EXEC) == 0) return c;
  rt_code_free(c);
  return tt_fail(err, TT_UNSUPPORTED, "error: this system does not let a program run code that it has made\n  at mprotect of %zu bytes\n  fix: allow executable memory (SELinux: execmem), or use the interpreter (--backend interp)", bytes), NULL;
}

void rt_code_free(rt_code *c) {
  if (!c) return;
  munmap(c->memory, c->bytes);
  free(c);
}
