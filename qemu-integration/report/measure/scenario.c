/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "machine.h"
#include "scenario.h"
#include "vm.h"

#include <errno.h>
#include <string.h>

/* Below, the guest's kernel does not boot. */
#define MEMORY_MIN	(UINT64_C(128) << 20)
/* Of a guest with a compiler, whose archive it has twice for a moment. */
#define COMPILE_MIN	(UINT64_C(256) << 20)
/* Of a guest that keeps 1/4 of it and has 5/8 in the balloon: the rest is for its kernel */
#define FRAGMENTED_MIN	(UINT64_C(2048) << 20)
/* From here on, memory is not reserved: few machines have it, and no scenario fills it. */
#define RESERVED_MAX	(UINT64_C(64) << 30)
#define NOT_RESERVED	"memory-backend-ram,reserve=off"
#define BUSY_RATE	20000u
#define COMPILE_OBJECTS	22u	/* each source twice */
#define GUESTS_MAX	64u

static const struct {
	const char *name;
	const char *ram;
	const char *ram_words;
	bool shared;
	enum memory_use use;
	const char *help;
	const char *append;
	guint64 downtime_ms;
	bool moved;
} kinds[] = {
	{ "idle", VM_RAM_ANON, "anonymous memory", false, USE_LITTLE,
	  "booted and idle, anonymous memory" },
	{ "freed", VM_RAM_ANON, "anonymous memory, 5/8 of it written to and freed", false, USE_FREED,
	  "the same after it wrote to 5/8 of its memory and freed that" },
	{ "full", VM_RAM_ANON, "anonymous memory, full of content", false, USE_ALL,
	  "the same with all its memory in use: nothing to leave out" },
	{ "busy", VM_RAM_ANON, "anonymous memory, 1/8 of it in use and written to", false, USE_BUSY,
	  "the same while it rewrites 1/8 of its memory" },
	{ "zeroed", VM_RAM_ANON, "anonymous memory, 5/8 of it written to, freed and cleared", false,
	  USE_FREED, "freed-SIZE of a guest that clears what it frees",
	  "init_on_free=1" },
	{ "balloon", VM_RAM_ANON, "anonymous memory, 3/4 of it in the balloon and back", false,
	  USE_BALLOON, "idle-SIZE, 3/4 of which go into the balloon and back" },
	{ "compile", VM_RAM_ANON, "anonymous memory, while it compiles", false, USE_COMPILE,
	  "the same while gcc runs in it; how long its job then takes" },
	{ "memfd", VM_RAM_MEMFD, "shared memfd memory", true, USE_LITTLE,
	  "booted and idle, memory-backend-memfd with share=on" },
	{ "fragmented", VM_RAM_MEMFD, "shared memfd memory, full of short holes", true,
	  USE_FRAGMENTED, "memfd-SIZE, single pages of half of it in the balloon" },
	{ "longdown", VM_RAM_MEMFD, "shared memfd memory, with a downtime-limit of 120 s", true,
	  USE_LITTLE, "memfd-SIZE where QEMU may stop the guest for two minutes", NULL, 120000 },
	{ "movable", VM_RAM_MEMFD, "shared memfd memory, that the host compacts meanwhile", true,
	  USE_LITTLE, "memfd-SIZE while the host moves its memory about; root only",
	  .moved = true },
};

/* By enum way */
static const char *const ways[] = { "live", "save", "restore", NULL };

static const char *const balloon_args[] = {
	"-object", "iothread,id=io0",
	"-device", "virtio-balloon-pci,id=balloon0,free-page-hint=on,iothread=io0",
	NULL,
};

static const char *const virtio_fph_args[] = {
	"-device", "virtio-fph-pci,id=pv0",
	NULL,
};

static const char *const reporting_args[] = {
	"-device", "virtio-balloon-pci,id=balloon0,free-page-reporting=on",
	NULL,
};

/* What a guest with a balloon has, if the mode has not one of its own. */
static const char *const plain_balloon_args[] = {
	"-device", "virtio-balloon-pci,id=balloon0",
	NULL,
};

static const char *const virtio_fph_balloon_args[] = {
	"-device", "virtio-fph-pci,id=pv0,balloon=on",
	NULL,
};

static const struct device plain_balloon = {
	"virtio-balloon-pci", "virtio_balloon", plain_balloon_args, "virtio-balloon", 0, 1,
};
static const struct device virtio_fph_balloon = {
	"virtio-fph-pci", "virtio_fph", virtio_fph_balloon_args, "virtio-fph", 2, 2,
};
static const struct device reporting = {
	"virtio-balloon-pci", "virtio_balloon", reporting_args, "virtio-balloon", 0, 1,
};
static const struct device balloon = {
	"virtio-balloon-pci", "virtio_balloon", balloon_args, "virtio-balloon", 0, 1,
};
static const struct device virtio_fph = { "virtio-fph-pci", "virtio_fph", virtio_fph_args };

const struct mode modes[] = {
	{ "none", NULL, NULL, false, false, false,
	  "QEMU as it is: reads every page" },
	{ "balloon", NULL, &balloon, false, false, false,
	  "QEMU as it is, with free page hints of virtio-balloon" },
	{ "reporting", NULL, &reporting, false, true, false,
	  "QEMU as it is; free pages went back to the host before" },
	{ "pagemap", "pagemap", NULL, true, false, false,
	  "the host leaves out what it never gave memory for" },
	{ "prescan", "pagemap,prescan=on", NULL, true, false, true,
	  "pagemap, and pages of zeroes, found before the migration" },
	{ "pv", "pv", &virtio_fph, false, false, false,
	  "the guest says which pages are free, by virtio-fph" },
	{ "pv-balloon", "pv", &balloon, false, false, false,
	  "the same, by free page hints of virtio-balloon" },
	{ "both", "both", &virtio_fph, true, false, false,
	  "pagemap and pv" },
	{ "both-multifd", "both", &virtio_fph, true, false, false,
	  "the same, by two connections of multifd", 2 },
	{ "both-balloon", "both", &balloon, true, false, false,
	  "pagemap and pv-balloon" },
	{ NULL },
};

bool size_parse(const char *text, guint64 *ret, GError **error)
{
	static const char units[] = "kmgt";
	const char *unit;
	guint64 n;
	char *end;
	int shift = 0;

	errno = 0;
	n = g_ascii_strtoull(text, &end, 10);
	if (!g_ascii_isdigit(*text) || errno)
		goto bad;
	if (*end) {
		unit = strchr(units, g_ascii_tolower(*end));
		if (!unit || end[1])
			goto bad;
		shift = 10 * (unit - units + 1);
	}
	if (n == 0 || n > (guint64)G_MAXINT64 >> shift)
		goto bad;
	*ret = n << shift;
	return true;
bad:
	g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
		    "'%s' is not a size; a number, with k, m, g or t behind it if you like", text);
	return false;
}

static char *size_suffix(guint64 bytes)
{
	if (bytes % (UINT64_C(1) << 30) == 0)
		return g_strdup_printf("%" G_GUINT64_FORMAT "g", bytes >> 30);
	if (bytes % (UINT64_C(1) << 20) == 0)
		return g_strdup_printf("%" G_GUINT64_FORMAT "m", bytes >> 20);
	return g_strdup_printf("%" G_GUINT64_FORMAT, bytes);
}

static guint64 bytes_to_fill(enum memory_use use, guint64 memory)
{
	switch (use) {
	case USE_LITTLE:
		return 0;
	case USE_FREED:
		return memory / 8 * 5 >> 21 << 21;	/* whole huge pages of the guest */
	case USE_ALL:
		return memory;
	case USE_BUSY:
		return memory / 8 >> 21 << 21;
	case USE_FRAGMENTED:
		return memory / 2 >> 21 << 21;
	case USE_BALLOON:
	case USE_COMPILE:
		return 0;
	}
	g_assert_not_reached();
}

static guint64 fill_of(const struct scenario *s, guint64 memory)
{
	return bytes_to_fill(s->use == USE_BALLOON ? s->before : s->use, memory);
}

/* As QEMU takes it: memory in a file without a name is, unless told otherwise */
static bool is_shared(const char *ram)
{
	if (!ram)
		return false;
	if (g_str_has_prefix(ram, "memory-backend-memfd") ||
	    g_str_has_prefix(ram, "memory-backend-shm"))
		return !strstr(ram, "share=off");
	return strstr(ram, "share=on");
}

static guint64 bytes_in_balloon(enum memory_use use, guint64 memory)
{
	/* More than is free in larger pieces */
	if (use == USE_FRAGMENTED)
		return memory / 8 * 5 >> 21 << 21;
	return memory / 4 * 3 >> 21 << 21;
}

static bool memory_valid(const char *name, enum memory_use use, guint64 memory, GError **error)
{
	guint64 min = use == USE_COMPILE ? COMPILE_MIN :
		      use == USE_FRAGMENTED ? FRAGMENTED_MIN : MEMORY_MIN;

	if (memory >= min && memory % 4096 == 0)
		return true;
	g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
		    "scenario '%s': memory must be %dm or more, in whole pages", name,
		    (int)(min >> 20));
	return false;
}

static bool read_use(const char *text, enum memory_use *ret, GError **error)
{
	static const char *const uses[] = {
		"little", "freed", "all", "busy", "balloon", "fragmented", "compile", NULL
	};

	*ret = USE_LITTLE;
	for (int i = 0; text && uses[i]; i++) {
		if (!strcmp(uses[i], text)) {
			*ret = (enum memory_use)i;
			return true;
		}
	}
	if (text)
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
			    "unknown use '%s'; there are: little, freed, all, busy, balloon, "
			    "fragmented, compile", text);
	return !text;
}

/* Keys of the group [scenario] in a file. */
static bool read_keys(GKeyFile *file, struct scenario *s, GError **error)
{
	static const char group[] = "scenario";
	static const char *const known[] = {
		"name", "memory", "ram", "use", "before", "fill", "balloon", "rate", "objects",
		"append", "way", NULL
	};
	g_auto(GStrv) keys = g_key_file_get_keys(file, group, NULL, error);
	g_autofree char *memory = g_key_file_get_string(file, group, "memory", NULL);
	g_autofree char *use = g_key_file_get_string(file, group, "use", NULL);
	g_autofree char *before = g_key_file_get_string(file, group, "before", NULL);
	g_autofree char *into = g_key_file_get_string(file, group, "balloon", NULL);
	g_autofree char *way = g_key_file_get_string(file, group, "way", NULL);
	g_autofree char *fill = g_key_file_get_string(file, group, "fill", NULL);
	g_autofree char *rate = g_key_file_get_string(file, group, "rate", NULL);
	g_autofree char *objects = g_key_file_get_string(file, group, "objects", NULL);
	char **k;
	int i;

	if (!keys)
		return false;
	for (k = keys; *k; k++) {
		if (g_strv_contains(known, *k))
			continue;
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
			    "unknown key '%s'; there are: name, memory, ram, use, before, fill, "
			    "balloon, rate, objects, append, way", *k);
		return false;
	}
	s->name = g_key_file_get_string(file, group, "name", error);
	if (!s->name)
		return false;
	if (!memory || !size_parse(memory, &s->memory, error)) {
		if (!memory)
			g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
				    "memory is missing");
		return false;
	}
	s->guests = 1;
	s->ram = g_key_file_get_string(file, group, "ram", NULL);
	s->shared = is_shared(s->ram);
	s->append = g_key_file_get_string(file, group, "append", NULL);
	if (!read_use(use, &s->use, error) || !read_use(before, &s->before, error))
		return false;
	if (before && (s->use != USE_BALLOON ||
		       (s->before != USE_FREED && s->before != USE_FRAGMENTED))) {
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
			    "before goes with use=balloon, and is freed or fragmented");
		return false;
	}
	for (i = 0; way && ways[i]; i++)
		if (strcmp(ways[i], way) == 0)
			break;
	if (way && !ways[i]) {
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
			    "unknown way '%s'; there are: live, save, restore", way);
		return false;
	}
	s->way = way ? (enum way)i : WAY_LIVE;
	s->fill = fill_of(s, s->memory);
	if (fill && !size_parse(fill, &s->fill, error))
		return false;
	s->rate = BUSY_RATE;
	s->balloon = bytes_in_balloon(s->use, s->memory);
	if (into && !size_parse(into, &s->balloon, error))
		return false;
	if (s->balloon >= s->memory) {
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
			    "balloon must be less than memory");
		return false;
	}
	if (rate && !g_ascii_string_to_unsigned(rate, 10, 1, 10000000, &s->rate, error))
		return false;
	s->objects = COMPILE_OBJECTS;
	if (objects && !g_ascii_string_to_unsigned(objects, 10, 1, 1000000, &s->objects, error))
		return false;
	return true;
}

static struct scenario *scenario_load(const char *path, guint64 memory, GError **error)
{
	g_autoptr(GKeyFile) file = g_key_file_new();
	g_autofree char *file_name = NULL, *digest = NULL;
	struct scenario *s = g_new0(struct scenario, 1);
	GError *err = NULL;

	if (g_key_file_load_from_file(file, path, G_KEY_FILE_NONE, &err) &&
	    read_keys(file, s, &err)) {
		if (memory) {
			s->fill = g_key_file_has_key(file, "scenario", "fill", NULL) ?
				  MIN(s->fill, memory) : fill_of(s, memory);
			s->balloon = (guint64)((double)s->balloon / s->memory * memory) >> 21 << 21;
			s->memory = memory;
		}
		file_name = g_path_get_basename(path);
		/* Which of those that have had that name */
		digest = file_digest(path, error);
		if (!digest) {
			scenario_free(s);
			return NULL;
		}
		s->ram_words = g_strdup_printf("%s, as %s says (%.8s)",
					       s->ram ? s->ram : "anonymous memory", file_name,
					       digest);
		if (memory_valid(s->name, s->use, s->memory, error))
			return s;
	} else {
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT, "%s: %s", path,
			    err->message);
		g_error_free(err);
	}
	scenario_free(s);
	return NULL;
}

/* Return: what is behind "save-" or "restore-" */
static const char *skip_way(const char *name, enum way *way)
{
	for (int i = WAY_SAVE; ways[i]; i++) {
		size_t len = strlen(ways[i]);

		if (g_str_has_prefix(name, ways[i]) && name[len] == '-') {
			*way = (enum way)i;
			return name + len + 1;
		}
	}
	return name;
}

/* Return: what is behind "evacuate-N-" */
static const char *skip_guests(const char *name, guint *guests)
{
	static const char word[] = "evacuate-";
	g_autofree char *number = NULL;
	const char *dash;
	guint64 n;

	if (!g_str_has_prefix(name, word))
		return name;
	name += strlen(word);
	dash = strchr(name, '-');
	number = dash ? g_strndup(name, dash - name) : NULL;
	if (!number || !g_ascii_string_to_unsigned(number, 10, 1, GUESTS_MAX, &n, NULL))
		return name;
	*guests = n;
	return dash + 1;
}

/* What these do is measured by itself, for one guest */
static bool can_be_many(enum memory_use use)
{
	return use != USE_BUSY && use != USE_BALLOON && use != USE_COMPILE;
}

struct scenario *scenario_parse(const char *name, guint64 memory, GError **error)
{
	g_autofree char *suffix = NULL, *prefix = NULL;
	enum way way = WAY_LIVE;
	guint guests = 0;
	const char *kind, *dash;
	struct scenario *s;
	guint64 own = 0;
	size_t i;

	if (strchr(name, '/'))
		return scenario_load(name, memory, error);
	kind = skip_guests(name, &guests);
	if (!guests)
		kind = skip_way(name, &way);
	if ((way != WAY_LIVE || guests) && size_parse(kind, &own, NULL)) {
		i = 0;		/* idle */
		dash = kind - 1;
	} else {
		dash = strchr(kind, '-');
		for (i = 0; dash && i < G_N_ELEMENTS(kinds); i++)
			if (strlen(kinds[i].name) == (size_t)(dash - kind) &&
			    g_str_has_prefix(kind, kinds[i].name))
				break;
	}
	if (!dash || i == G_N_ELEMENTS(kinds) || !size_parse(dash + 1, &own, NULL) ||
	    (guests && !can_be_many(kinds[i].use))) {
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
			    "unknown scenario '%s'; there are idle-8g, freed-8g, zeroed-8g, full-8g, "
			    "busy-8g, compile-8g, balloon-8g, memfd-8g, fragmented-8g, longdown-8g "
			    "and movable-8g, any other size, as in idle-512m, each with save- or "
			    "restore- before it, all but busy, compile and balloon with "
			    "evacuate-N-, and files, as in ./mine.scenario", name);
		return NULL;
	}
	if (memory)
		own = memory;
	if (!memory_valid(name, kinds[i].use, own, error))
		return NULL;
	suffix = size_suffix(own);
	s = g_new0(struct scenario, 1);
	prefix = guests ? g_strdup_printf("evacuate-%u-", guests) :
		 way != WAY_LIVE ? g_strdup_printf("%s-", ways[way]) : g_strdup("");
	s->name = g_strdup_printf("%s%s-%s", prefix, kinds[i].name, suffix);
	s->way = way;
	s->guests = MAX(guests, 1);
	s->ram = g_strdup(kinds[i].ram);
	s->ram_words = guests ? g_strdup_printf("%s; %u such guests at once", kinds[i].ram_words,
						guests) : g_strdup(kinds[i].ram_words);
	if (!s->ram && own >= RESERVED_MAX)
		s->ram = g_strdup(NOT_RESERVED);
	s->shared = kinds[i].shared;
	s->memory = own;
	s->append = g_strdup(kinds[i].append);
	s->use = kinds[i].use;
	s->fill = bytes_to_fill(s->use, own);
	s->rate = BUSY_RATE;
	s->balloon = bytes_in_balloon(s->use, own);
	s->downtime_ms = kinds[i].downtime_ms;
	s->moved = kinds[i].moved;
	s->objects = COMPILE_OBJECTS;
	return s;
}

void scenario_free(struct scenario *s)
{
	if (!s)
		return;
	g_free(s->name);
	g_free(s->ram);
	g_free(s->ram_words);
	g_free(s->append);
	g_free(s);
}

const struct device *scenario_device(const struct scenario *s, const struct mode *m)
{
	if (s->use != USE_BALLOON && s->use != USE_FRAGMENTED)
		return m->device;
	if (!m->device)
		return &plain_balloon;
	return m->device == &virtio_fph ? &virtio_fph_balloon : m->device;
}

const struct mode *mode_find(const char *name, GError **error)
{
	g_autoptr(GString) known = NULL;
	const struct mode *m;

	for (m = modes; m->name; m++)
		if (strcmp(m->name, name) == 0)
			return m;
	known = g_string_new(NULL);
	for (m = modes; m->name; m++)
		g_string_append_printf(known, "%s%s", known->len ? ", " : "", m->name);
	g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
		    "unknown mode '%s'; there are: %s", name, known->str);
	return NULL;
}

char *scenario_help(void)
{
	GString *out = g_string_new("Scenarios:\n");
	const struct mode *m;
	size_t i;

	for (i = 0; i < G_N_ELEMENTS(kinds); i++)
		g_string_append_printf(out, "  %s-SIZE%*s%s\n", kinds[i].name,
				       (int)(14 - strlen(kinds[i].name)), "", kinds[i].help);
	g_string_append(out, "  save-KIND-SIZE     one of these saved to a file, in $TMPDIR or /var/tmp\n"
			"  restore-KIND-SIZE  loaded from it; without KIND-: idle\n"
			"  evacuate-N-KIND-SIZE\n"
			"                     N of them at once: the time until all are there, the\n"
			"                     slowest downtime, and sums\n");
	g_string_append(out, "\nModes:\n");
	for (m = modes; m->name; m++)
		g_string_append_printf(out, "  %-18s %s\n", m->name, m->help);
	return g_string_free(out, FALSE);
}
