/* A libnvidia-ml.so.1 that says what a scenario file says, so that the real nvidia-ml-py and the real reader process run
 * where there is no GPU. The file is named by NVML_SHIM_SCENARIO and is looked at at every call.
 *
 * One line each: GPU (a number, or * for all and for the library) KEY VALUE. KEY is the function, with `:argument` behind it where
 * it takes one that matters, or `field:NUMBER` or `field:NUMBER:SCOPE`. VALUE is a number, several, or text; `!15` returns that
 * NVML error; `hang` does not return until the file says something else. What the file does not name is NVML_ERROR_NOT_SUPPORTED.
 * The first line that matches wins. `-DWITHOUT_NAME` leaves a function out, as an old driver does.
 *
 * The prototypes are those that nvidia-ml-py calls; nothing of NVIDIA's header is copied.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum { OK = 0, NOT_SUPPORTED = 3, INSUFFICIENT_SIZE = 7, WORDS = 16, TEXT = 256 };
typedef unsigned long long u64;
typedef void *device;

static int gpu_of(device d) { return (int)(size_t)d - 1; }

/* The scenario's lines, read once for as long as the file is the same one: it is replaced whole, so that a change is another inode.
 * What a call costs is then near what a call into a library costs, and not that of reading a file. */
struct row { int gpu; char name[128], value[TEXT]; };
static struct row *rows;
static size_t row_count;
static struct stat read_from;

static void read_rows(const char *path)
{
    FILE *file = fopen(path, "r");
    char line[512], who[16], name[128];
    int at = 0;
    row_count = 0;
    while (file && fgets(line, sizeof line, file)) {
        if (sscanf(line, "%15s %127s %n", who, name, &at) < 2)
            continue;
        line[strcspn(line, "\n")] = 0;
        rows = realloc(rows, (row_count + 1) * sizeof *rows);
        rows[row_count].gpu = strcmp(who, "*") ? atoi(who) : -1;
        snprintf(rows[row_count].name, sizeof rows->name, "%s", name);
        snprintf(rows[row_count].value, sizeof rows->value, "%s", line + at);
        row_count++;
    }
    if (file)
        fclose(file);
}

/* Put the value of a key into `text` and return 1, or return 0 where the scenario has none. */
static int look_up(int gpu, const char *key, char *text)
{
    const char *path = getenv("NVML_SHIM_SCENARIO");
    struct stat now;
    if (!path || stat(path, &now))
        return 0;
    if (now.st_ino != read_from.st_ino || now.st_mtim.tv_sec != read_from.st_mtim.tv_sec ||
        now.st_mtim.tv_nsec != read_from.st_mtim.tv_nsec || now.st_size != read_from.st_size) {
        read_rows(path);
        read_from = now;
    }
    for (size_t i = 0; i < row_count; i++)
        if ((rows[i].gpu == -1 || (gpu >= 0 && rows[i].gpu == gpu)) && !strcmp(rows[i].name, key)) {
            snprintf(text, TEXT, "%s", rows[i].value);
            return 1;
        }
    return 0;
}

/* The same, but a hang hangs and an error is returned. */
static int ask(int gpu, const char *key, char *text)
{
    struct timespec pause = {0, 5 * 1000 * 1000};
    while (look_up(gpu, key, text)) {
        if (text[0] == '!')
            return atoi(text + 1);
        if (strcmp(text, "hang"))
            return OK;
        nanosleep(&pause, NULL);
    }
    return NOT_SUPPORTED;
}

static int ask_key(int gpu, const char *name, const char *suffix, char *text)
{
    char key[128];
    snprintf(key, sizeof key, "%s%s", name, suffix);
    return ask(gpu, key, text);
}

static int numbers(int gpu, const char *name, const char *suffix, long long *out, int wanted)
{
    char text[TEXT], *rest = text;
    int result = ask_key(gpu, name, suffix, text);
    for (int i = 0; result == OK && i < wanted; i++)
        out[i] = strtoll(rest, &rest, 0);
    return result;
}

static int one_uint(device d, const char *name, const char *suffix, unsigned *out)
{
    long long value;
    int result = numbers(gpu_of(d), name, suffix, &value, 1);
    if (result == OK)
        *out = (unsigned)value;
    return result;
}

static int one_u64(device d, const char *name, const char *suffix, u64 *out)
{
    long long value;
    int result = numbers(gpu_of(d), name, suffix, &value, 1);
    if (result == OK)
        *out = (u64)value;
    return result;
}

static int one_text(int gpu, const char *name, char *out, unsigned length)
{
    char text[TEXT];
    int result = ask(gpu, name, text);
    if (result == OK)
        snprintf(out, length, "%s", text);
    return result;
}

/* The library. */
int nvmlInitWithFlags(unsigned flags)
{
    char text[TEXT];
    int result = ask(-1, "nvmlInit", text);
    (void)flags;
    return result == NOT_SUPPORTED ? OK : result;
}
int nvmlShutdown(void) { return OK; }
int nvmlSystemGetDriverVersion(char *out, unsigned n) { return one_text(-1, "nvmlSystemGetDriverVersion", out, n); }
int nvmlSystemGetNVMLVersion(char *out, unsigned n) { return one_text(-1, "nvmlSystemGetNVMLVersion", out, n); }
int nvmlSystemGetCudaDriverVersion(int *out) { return one_uint((device)0, "nvmlSystemGetCudaDriverVersion", "", (unsigned *)out); }
int nvmlDeviceGetCount_v2(unsigned *out) { return one_uint((device)0, "nvmlDeviceGetCount", "", out); }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, device *out)
{
    char text[TEXT];
    int result = ask((int)index, "nvmlDeviceGetHandleByIndex", text);
    *out = (device)(size_t)(index + 1);
    return result == NOT_SUPPORTED ? OK : result;
}

/* Texts, and numbers without an argument. */
#define TEXT_OF(name) int name(device d, char *out, unsigned n) { return one_text(gpu_of(d), #name, out, n); }
TEXT_OF(nvmlDeviceGetName)
TEXT_OF(nvmlDeviceGetUUID)
TEXT_OF(nvmlDeviceGetSerial)
TEXT_OF(nvmlDeviceGetVbiosVersion)
TEXT_OF(nvmlDeviceGetInforomImageVersion)
int nvmlDeviceGetGspFirmwareVersion(device d, char *out) { return one_text(gpu_of(d), "nvmlDeviceGetGspFirmwareVersion", out, 64); }

#define UINT_OF(name) int name(device d, unsigned *out) { return one_uint(d, #name, "", out); }
#define U64_OF(name) int name(device d, u64 *out) { return one_u64(d, #name, "", out); }
UINT_OF(nvmlDeviceGetPersistenceMode)
UINT_OF(nvmlDeviceGetRetiredPagesPendingStatus)
UINT_OF(nvmlDeviceGetPowerUsage)
UINT_OF(nvmlDeviceGetEnforcedPowerLimit)
UINT_OF(nvmlDeviceGetPowerManagementDefaultLimit)
UINT_OF(nvmlDeviceGetPerformanceState)
UINT_OF(nvmlDeviceGetCurrPcieLinkGeneration)
UINT_OF(nvmlDeviceGetMaxPcieLinkGeneration)
UINT_OF(nvmlDeviceGetCurrPcieLinkWidth)
UINT_OF(nvmlDeviceGetMaxPcieLinkWidth)
UINT_OF(nvmlDeviceGetPcieReplayCounter)
U64_OF(nvmlDeviceGetTotalEnergyConsumption)
U64_OF(nvmlDeviceGetCurrentClocksThrottleReasons)
#ifndef WITHOUT_nvmlDeviceGetCurrentClocksEventReasons
U64_OF(nvmlDeviceGetCurrentClocksEventReasons)
#endif

/* Numbers with arguments. */
#define UINT_BY(name) int name(device d, unsigned a, unsigned *out) \
    { char s[16]; snprintf(s, sizeof s, ":%u", a); return one_uint(d, #name, s, out); }
UINT_BY(nvmlDeviceGetTemperature)
UINT_BY(nvmlDeviceGetTemperatureThreshold)
UINT_BY(nvmlDeviceGetClockInfo)
UINT_BY(nvmlDeviceGetMaxClockInfo)
UINT_BY(nvmlDeviceGetNvLinkState)

int nvmlDeviceGetTotalEccErrors(device d, unsigned kind, unsigned counter, u64 *out)
{
    char s[16];
    snprintf(s, sizeof s, ":%u:%u", kind, counter);
    return one_u64(d, "nvmlDeviceGetTotalEccErrors", s, out);
}
int nvmlDeviceGetMemoryErrorCounter(device d, unsigned kind, unsigned counter, unsigned place, u64 *out)
{
    char s[24];
    snprintf(s, sizeof s, ":%u:%u:%u", kind, counter, place);
    return one_u64(d, "nvmlDeviceGetMemoryErrorCounter", s, out);
}

/* Several numbers, and structures. */
static int uints(device d, const char *name, unsigned **out, int wanted)
{
    long long values[WORDS];
    int result = numbers(gpu_of(d), name, "", values, wanted);
    for (int i = 0; result == OK && i < wanted; i++)
        *out[i] = (unsigned)values[i];
    return result;
}
int nvmlDeviceGetMigMode(device d, unsigned *a, unsigned *b)
{
    unsigned *out[] = {a, b};
    return uints(d, "nvmlDeviceGetMigMode", out, 2);
}
int nvmlDeviceGetEccMode(device d, unsigned *a, unsigned *b)
{
    unsigned *out[] = {a, b};
    return uints(d, "nvmlDeviceGetEccMode", out, 2);
}
int nvmlDeviceGetRemappedRows(device d, unsigned *a, unsigned *b, unsigned *c, unsigned *e)
{
    unsigned *out[] = {a, b, c, e};
    return uints(d, "nvmlDeviceGetRemappedRows", out, 4);
}
int nvmlDeviceGetRowRemapperHistogram(device d, unsigned *values)
{
    unsigned *out[] = {values, values + 1, values + 2, values + 3, values + 4};
    return uints(d, "nvmlDeviceGetRowRemapperHistogram", out, 5);
}
int nvmlDeviceGetUtilizationRates(device d, unsigned *values)
{
    unsigned *out[] = {values, values + 1};
    return uints(d, "nvmlDeviceGetUtilizationRates", out, 2);
}
int nvmlDeviceGetMarginTemperature(device d, int *versioned)
{
    return one_uint(d, "nvmlDeviceGetMarginTemperature", "", (unsigned *)versioned + 1);
}
int nvmlDeviceGetMemoryInfo(device d, u64 *out) /* total, free, used */
{
    long long values[3];
    int result = numbers(gpu_of(d), "nvmlDeviceGetMemoryInfo", "", values, 3);
    for (int i = 0; result == OK && i < 3; i++)
        out[i] = (u64)values[i];
    return result;
}
#ifndef WITHOUT_nvmlDeviceGetMemoryInfo_v2
struct memory_v2 { unsigned version; u64 total, reserved, free, used; };
int nvmlDeviceGetMemoryInfo_v2(device d, struct memory_v2 *out)
{
    long long values[4];
    int result = numbers(gpu_of(d), "nvmlDeviceGetMemoryInfo_v2", "", values, 4);
    if (result == OK) {
        out->total = (u64)values[0];
        out->reserved = (u64)values[1];
        out->free = (u64)values[2];
        out->used = (u64)values[3];
    }
    return result;
}
#endif
struct sram { unsigned version; u64 counts[11]; unsigned exceeded; };
int nvmlDeviceGetSramEccErrorStatus(device d, struct sram *out)
{
    return one_uint(d, "nvmlDeviceGetSramEccErrorStatus", "", &out->exceeded);
}
struct pci { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; };
int nvmlDeviceGetPciInfo_v3(device d, struct pci *out)
{
    return one_text(gpu_of(d), "nvmlDeviceGetPciInfo", out->bus_id, sizeof out->bus_id);
}
int nvmlDeviceGetRetiredPages(device d, unsigned cause, unsigned *count, u64 *pages)
{
    char s[16];
    unsigned have = 0, room = *count;
    snprintf(s, sizeof s, ":%u", cause);
    int result = one_uint(d, "nvmlDeviceGetRetiredPages", s, &have);
    if (result != OK)
        return result;
    *count = have;
    if (!pages || room < have)
        return have ? INSUFFICIENT_SIZE : OK;
    for (unsigned i = 0; i < have; i++)
        pages[i] = 0x1000ull * (i + 1);
    return OK;
}

/* Fields: the call succeeds although single ones fail, as NVML's does. A number below zero is a signed int, else an u64. */
struct field { unsigned id, scope; long long time, latency; unsigned type; int result; long long value; };
int nvmlDeviceGetFieldValues(device d, int count, struct field *fields)
{
    char text[TEXT], key[32];
    int result = ask(gpu_of(d), "nvmlDeviceGetFieldValues", text);
    if (result != OK && result != NOT_SUPPORTED)
        return result;
    for (int i = 0; i < count; i++) {
        snprintf(key, sizeof key, "field:%u:%u", fields[i].id, fields[i].scope);
        fields[i].result = ask(gpu_of(d), key, text);
        if (fields[i].result == NOT_SUPPORTED && fields[i].scope == 0) {
            snprintf(key, sizeof key, "field:%u", fields[i].id);
            fields[i].result = ask(gpu_of(d), key, text);
        }
        if (fields[i].result != OK)
            continue;
        fields[i].value = strtoll(text, NULL, 0);
        fields[i].type = fields[i].value < 0 ? 5 : 3;
    }
    return OK;
}
