/*
 * fph-source: the object that users create, and their commands
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-fph.h"
#include "qapi/visitor.h"
#include "qemu/module.h"
#include "qom/object_interfaces.h"
#include "exec/target_page.h"

#include "system/fph-compat.h"
#include "fph-source.h"

/* Milliseconds */
#define FPH_PV_WAIT_DEFAULT 500
#define FPH_PV_WAIT_MAX 60000

/* Percent of one CPU */
#define FPH_PRESCAN_CPU_DEFAULT 10

#define TYPE_FPH_OBJECT "fph-source"
OBJECT_DECLARE_SIMPLE_TYPE(FphObject, FPH_OBJECT)

struct FphObject {
    Object parent;

    bool mode_set;
    FphConfig *config;
    FphSource *source;          /* NULL until it is complete */
};

static FphSource *fph_the_source;

static bool fph_object_is_complete(FphObject *fo, const char *name,
                                   Error **errp)
{
    if (!fo->source) {
        return false;
    }
    error_setg(errp, "%s cannot be changed after creation", name);
    return true;
}

static int fph_object_get_mode(Object *obj, Error **errp)
{
    return FPH_OBJECT(obj)->config->mode;
}

static void fph_object_set_mode(Object *obj, int mode, Error **errp)
{
    FphObject *fo = FPH_OBJECT(obj);

    if (fph_object_is_complete(fo, "mode", errp)) {
        return;
    }
    fo->config->mode = mode;
    fo->mode_set = true;
}

static int fph_object_get_scanner(Object *obj, Error **errp)
{
    return FPH_OBJECT(obj)->config->scanner;
}

static void fph_object_set_scanner(Object *obj, int kind, Error **errp)
{
    FphObject *fo = FPH_OBJECT(obj);

    if (!fph_object_is_complete(fo, "scanner", errp)) {
        fo->config->scanner = kind;
    }
}

static int fph_object_get_verify(Object *obj, Error **errp)
{
    return FPH_OBJECT(obj)->config->verify;
}

static void fph_object_set_verify(Object *obj, int verify, Error **errp)
{
    FphObject *fo = FPH_OBJECT(obj);

    if (!fph_object_is_complete(fo, "verify", errp)) {
        fo->config->verify = verify;
    }
}

static char *fph_object_get_pv_device(Object *obj, Error **errp)
{
    return g_strdup(FPH_OBJECT(obj)->config->pv_device);
}

static void fph_object_set_pv_device(Object *obj, const char *value,
                                     Error **errp)
{
    FphObject *fo = FPH_OBJECT(obj);

    if (fph_object_is_complete(fo, "pv-device", errp)) {
        return;
    }
    g_free(fo->config->pv_device);
    fo->config->pv_device = g_strdup(value);
}

static char *fph_object_get_tracer(Object *obj, Error **errp)
{
    return g_strdup(FPH_OBJECT(obj)->config->tracer);
}

static void fph_object_set_tracer(Object *obj, const char *value, Error **errp)
{
    FphObject *fo = FPH_OBJECT(obj);

    if (fph_object_is_complete(fo, "tracer", errp)) {
        return;
    }
    g_free(fo->config->tracer);
    fo->config->tracer = g_strdup(value);
}

static uint32_t *fph_object_ms(Object *obj, void *offset)
{
    return (uint32_t *)((char *)FPH_OBJECT(obj)->config + (size_t)offset);
}

static void fph_object_get_ms(Object *obj, Visitor *v, const char *name,
                              void *opaque, Error **errp)
{
    visit_type_uint32(v, name, fph_object_ms(obj, opaque),
                      errp);
}

static void fph_object_set_ms(Object *obj, Visitor *v, const char *name,
                              void *opaque, Error **errp)
{
    uint32_t value;

    if (!visit_type_uint32(v, name, &value, errp)) {
        return;
    }
    if (value > FPH_PV_WAIT_MAX) {
        error_setg(errp, "%s takes milliseconds, from 0 to %d", name,
                   FPH_PV_WAIT_MAX);
        return;
    }
    *fph_object_ms(obj, opaque) = value;
}

static bool fph_object_get_dry_run(Object *obj, Error **errp)
{
    return FPH_OBJECT(obj)->config->dry_run;
}

static void fph_object_set_dry_run(Object *obj, bool value, Error **errp)
{
    FphObject *fo = FPH_OBJECT(obj);

    if (!fph_object_is_complete(fo, "dry-run", errp)) {
        fo->config->dry_run = value;
    }
}

static bool fph_object_get_assume_zero(Object *obj, Error **errp)
{
    return FPH_OBJECT(obj)->config->assume_zero_destination;
}

static void fph_object_set_assume_zero(Object *obj, bool value, Error **errp)
{
    FphObject *fo = FPH_OBJECT(obj);

    if (fph_object_is_complete(fo, "assume-zero-destination", errp)) {
        return;
    }
    fo->config->assume_zero_destination = value;
}

static bool fph_object_get_prescan(Object *obj, Error **errp)
{
    return FPH_OBJECT(obj)->config->prescan;
}

static void fph_object_set_prescan(Object *obj, bool value, Error **errp)
{
    FphObject *fo = FPH_OBJECT(obj);

    if (!fph_object_is_complete(fo, "prescan", errp)) {
        fo->config->prescan = value;
    }
}

static void fph_object_get_prescan_cpu(Object *obj, Visitor *v,
                                       const char *name, void *opaque,
                                       Error **errp)
{
    visit_type_uint8(v, name, &FPH_OBJECT(obj)->config->prescan_cpu, errp);
}

static void fph_object_set_prescan_cpu(Object *obj, Visitor *v,
                                       const char *name, void *opaque,
                                       Error **errp)
{
    uint8_t value;

    if (!visit_type_uint8(v, name, &value, errp)) {
        return;
    }
    if (value < 1 || value > 100) {
        error_setg(errp, "%s takes percent of one CPU, from 1 to 100", name);
        return;
    }
    /* The thread reads it now and then */
    qatomic_set(&FPH_OBJECT(obj)->config->prescan_cpu, value);
}

static void fph_object_complete(UserCreatable *uc, Error **errp)
{
    FphObject *fo = FPH_OBJECT(uc);
    FphConfig *config = fo->config;

    if (!fo->mode_set) {
        error_setg(errp, "fph-source needs the property 'mode'");
        return;
    }
    if (config->pv_device && config->mode == FPH_MODE_PAGEMAP) {
        error_setg(errp, "mode=pagemap does not ask the guest, so there is "
                   "nothing that pv-device could do");
        return;
    }
    if (config->tracer && config->mode == FPH_MODE_PV) {
        error_setg(errp, "mode=pv does not scan, so there is nothing that "
                   "tracer could do");
        return;
    }
    if (config->prescan && config->mode == FPH_MODE_PV) {
        error_setg(errp, "mode=pv does not ask the host, so there is nothing "
                   "that prescan could do");
        return;
    }
    if (config->dry_run && config->verify != FPH_VERIFY_OFF) {
        error_setg(errp, "dry-run leaves nothing out, so there is nothing "
                   "that could be verified");
        return;
    }
    fo->source = fph_source_new(object_get_canonical_path_component(OBJECT(fo)),
                                config, errp);
    if (fo->source) {
        fph_the_source = fo->source;
    }
}

static bool fph_object_can_be_deleted(UserCreatable *uc FPH_DELETE_ERRP)
{
    FphObject *fo = FPH_OBJECT(uc);

    if (fo->source && fph_source_is_busy(fo->source)) {
        FPH_REFUSE_DELETE(OBJECT(uc));
        return false;
    }
    return true;
}

static void fph_object_init(Object *obj)
{
    FphObject *fo = FPH_OBJECT(obj);

    fo->config = fph_config_new();
    fo->config->pv_wait = FPH_PV_WAIT_DEFAULT;
    fo->config->prescan_cpu = FPH_PRESCAN_CPU_DEFAULT;
}

static void fph_object_finalize(Object *obj)
{
    FphObject *fo = FPH_OBJECT(obj);

    /*
     * If QEMU quits in the middle of a migration, what the object stands for
     * stays: its thread may wait for the bitmap mutex, and that for a peer that
     * does not read.
     */
    if (fo->source && !fph_source_is_busy(fo->source)) {
        fph_the_source = NULL;
        fph_source_retire(fo->source);
    }
    fph_config_unref(fo->config);
}

static void fph_object_class_init(ObjectClass *oc, FphClassData *data)
{
    UserCreatableClass *ucc = USER_CREATABLE_CLASS(oc);

    ucc->complete = fph_object_complete;
    ucc->fph_can_be_deleted = fph_object_can_be_deleted;

    object_class_property_add_enum(oc, "mode", "FphMode", &FphMode_lookup,
                                   fph_object_get_mode, fph_object_set_mode);
    object_class_property_set_description(oc, "mode",
        "Which witness decides that a page can be left out");
    object_class_property_add_enum(oc, "scanner", "FphScannerKind",
                                   &FphScannerKind_lookup,
                                   fph_object_get_scanner,
                                   fph_object_set_scanner);
    object_class_property_set_description(oc, "scanner",
        "How the host's page tables are read");
    object_class_property_add_enum(oc, "verify", "FphVerify",
                                   &FphVerify_lookup, fph_object_get_verify,
                                   fph_object_set_verify);
    object_class_property_set_description(oc, "verify",
        "Whether to look once more at what was left out, at the end");
    object_class_property_add_str(oc, "pv-device", fph_object_get_pv_device,
                                  fph_object_set_pv_device);
    object_class_property_set_description(oc, "pv-device",
        "Device through which the guest reports its free pages");
    object_class_property_add_str(oc, "tracer", fph_object_get_tracer,
                                  fph_object_set_tracer);
    object_class_property_set_description(oc, "tracer",
        "Where the tracer is pinned, such as /sys/fs/bpf/fph");
    object_class_property_add(oc, "pv-wait", "uint32", fph_object_get_ms,
                              fph_object_set_ms, NULL,
                              (void *)offsetof(FphConfig, pv_wait));
    object_class_property_set_description(oc, "pv-wait",
        "Longest wait for the guest before pages are sent (milliseconds)");
    object_class_property_add_bool(oc, "dry-run", fph_object_get_dry_run,
                                   fph_object_set_dry_run);
    object_class_property_set_description(oc, "dry-run",
        "Count what could be left out, and send it all the same");
    object_class_property_add_bool(oc, "assume-zero-destination",
                                   fph_object_get_assume_zero,
                                   fph_object_set_assume_zero);
    object_class_property_set_description(oc, "assume-zero-destination",
        "Each memory-backend-file of the destination is on a new file");
    object_class_property_add_bool(oc, "prescan", fph_object_get_prescan,
                                   fph_object_set_prescan);
    object_class_property_set_description(oc, "prescan",
        "Look for pages that hold only zeroes before a migration");
    object_class_property_add(oc, "prescan-cpu", "uint8",
                              fph_object_get_prescan_cpu,
                              fph_object_set_prescan_cpu, NULL, NULL);
    object_class_property_set_description(oc, "prescan-cpu",
        "Share of one CPU that prescan may use (percent)");
    object_class_property_add(oc, "x-pv-delay", "uint32", fph_object_get_ms,
                              fph_object_set_ms, NULL,
                              (void *)offsetof(FphConfig, pv_delay));
    object_class_property_set_description(oc, "x-pv-delay",
        "Delay before a part of an answer is used (milliseconds), for tests");
}

static const TypeInfo fph_object_info = {
    .name = TYPE_FPH_OBJECT,
    .parent = TYPE_OBJECT,
    .instance_size = sizeof(FphObject),
    .instance_init = fph_object_init,
    .instance_finalize = fph_object_finalize,
    .class_init = fph_object_class_init,
    .interfaces = (InterfaceInfo[]) {
        { TYPE_USER_CREATABLE },
        { }
    }
};

static void fph_object_register_types(void)
{
    type_register_static(&fph_object_info);
}

type_init(fph_object_register_types);

FphInfoList *qmp_query_fph(Error **errp)
{
    FphInfoList *list = NULL;

    if (fph_the_source) {
        QAPI_LIST_PREPEND(list, fph_source_query(fph_the_source));
    }
    return list;
}

FphPageRangeList *qmp_x_query_fph_pages(Error **errp)
{
    GPtrArray *blocks = fph_the_source ? fph_source_get_blocks(fph_the_source) :
                                         NULL;
    FphPageRangeList *list = NULL, **tail = &list;

    for (guint i = 0; blocks && i < blocks->len; i++) {
        FphBlock *block = g_ptr_array_index(blocks, i);
        uint64_t npages = block->region.used / qemu_target_page_size();
        FphPageRange *range = NULL;

        for (uint64_t page = 0; block->skip && page < npages; page++) {
            unsigned int why = fph_skip_test(block->skip, page);
            bool guest = why & (1 << FPH_FREE);
            bool host = why & ~(1 << FPH_FREE);

            if (!why) {
                range = NULL;
                continue;
            }
            if (!range || range->guest != guest || range->host != host) {
                range = g_new0(FphPageRange, 1);
                range->block = g_strdup(block->name);
                range->first = page;
                range->guest = guest;
                range->host = host;
                QAPI_LIST_APPEND(tail, range);
            }
            range->count++;
        }
    }
    return list;
}
