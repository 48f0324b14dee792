/* See timer.h. A hashed wheel: a timer lies in the slot of its tick modulo the wheel's size; one that is due
 * in a later round stays when its slot is passed. With 4 s a round, an idle connection is looked at once in
 * 4 s, which is nothing. */
#include "io/timer.h"

#include "io/loop.h"
#include "io/loop_core.h"

static size_t slot_of(int64_t tick) { return (size_t)tick & (WHEEL_SLOTS - 1); }

void wheel_init(struct wheel *wheel, int64_t now_ms) {
    for (size_t i = 0; i < WHEEL_SLOTS; i++)
        list_init(&wheel->slots[i]);
    wheel->tick = now_ms / WHEEL_TICK_MS;
}

void timer_clear(struct timer *timer) { list_remove(&timer->link); }

void timer_set(struct timer *timer, deadline_ms expires) {
    list_remove(&timer->link);
    timer->expires = expires;
    if (expires == DEADLINE_NEVER)
        return;
    struct wheel *wheel = loop_wheel();
    int64_t tick = (expires + WHEEL_TICK_MS - 1) / WHEEL_TICK_MS;
    if (tick <= wheel->tick)
        tick = wheel->tick + 1;
    size_t slot = slot_of(tick);
    list_push_back(&wheel->slots[slot], &timer->link);
    wheel->occupied[slot / 64] |= (uint64_t)1 << (slot % 64);
}

int64_t wheel_next(const struct wheel *wheel, int64_t now_ms) {
    for (size_t ahead = 1; ahead <= WHEEL_SLOTS;) {
        size_t slot = slot_of(wheel->tick + (int64_t)ahead);
        uint64_t word = wheel->occupied[slot / 64] >> (slot % 64);
        if (word == 0) {
            ahead += 64 - slot % 64;
            continue;
        }
        int64_t tick = wheel->tick + (int64_t)ahead + __builtin_ctzll(word);
        int64_t left = tick * WHEEL_TICK_MS - now_ms;
        return left > 0 ? left : 0;
    }
    return -1;
}

static void slot_fire(struct wheel *wheel, size_t slot, int64_t now_ms) {
    struct list due;
    list_init(&due);
    list_for (item, &wheel->slots[slot]) {
        struct timer *timer = container_of(item, struct timer, link);
        if (timer->expires <= now_ms) {
            item = item->prev;
            list_remove(&timer->link);
            list_push_back(&due, &timer->link);
        }
    }
    if (list_empty(&wheel->slots[slot]))
        wheel->occupied[slot / 64] &= ~((uint64_t)1 << (slot % 64));
    struct list *item;
    while ((item = list_pop_front(&due)) != NULL) {
        struct timer *timer = container_of(item, struct timer, link);
        timer->fire(timer);
    }
}

void wheel_advance(struct wheel *wheel, int64_t now_ms) {
    int64_t target = now_ms / WHEEL_TICK_MS;
    if (target - wheel->tick > WHEEL_SLOTS)
        wheel->tick = target - WHEEL_SLOTS;
    while (wheel->tick < target) {
        wheel->tick++;
        size_t slot = slot_of(wheel->tick);
        if (wheel->occupied[slot / 64] >> (slot % 64) & 1)
            slot_fire(wheel, slot, now_ms);
    }
}
