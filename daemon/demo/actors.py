"""The demo's actors, and the JSON files that each of them has."""

import random
from dataclasses import dataclass

BUCKET = "demo-training-images"
REGION = "us-west-1"
ACTORS = 287
IMAGES_PER_ACTOR = 20


@dataclass(frozen=True, slots=True)
class Actor:
    name: str
    origin: str
    age: int
    gender: str

    def as_entry(self) -> dict[str, object]:
        return {"name": self.name, "ethnicity": self.origin, "age": self.age, "gender": self.gender}


def make_actors(count: int) -> list[Actor]:
    """The same actors in each run."""
    origins, ages, genders = ("european", "african", "asian", "latin", "nordic"), (25, 35, 45, 55), ("male", "female")
    actors = []
    for number in range(count):
        origin, age, gender = origins[number // 8 % len(origins)], ages[number % len(ages)], genders[number % len(genders)]
        actors.append(Actor(f"{number + 1:04d}_{origin}_{age}_{gender}", origin, age, gender))
    return actors


def documents(number: int, actor: Actor) -> dict[str, object]:
    """The actor's JSON files by name, in the shape of real ones; actorsync reads only response.json."""
    chance = random.Random(number)
    base_url = f"https://{BUCKET}.s3.{REGION}.amazonaws.com/actors/{actor.name}"
    urls = [f"{base_url}/{actor.name}_{index}.png" for index in range(IMAGES_PER_ACTOR)]
    prompts = [
        f"portrait of a {actor.age} year old {actor.origin} {actor.gender}, pose {index}" for index in range(IMAGES_PER_ACTOR)
    ]
    return {
        "request.json": {"input": {"actor": actor.name, "prompts": prompts}},
        "prompt_metadata.json": {"actor": actor.as_entry(), "prompts": prompts},
        "response.json": {
            "delayTime": chance.randrange(500, 5_000),
            "executionTime": chance.randrange(60_000, 240_000),
            "id": f"{chance.getrandbits(128):032x}-u1",
            "output": {"output": {"s3_image_urls": urls}},
            "status": "COMPLETED",
            "workerId": f"{chance.getrandbits(64):016x}",
        },
    }
